"""Sixty open-ended tasks, the constraints that grade their answers, and the pages that some of them stand on."""

"""Finds Chromium and starts it, with Playwright's driver, inside one process group and with its own sandbox on.

Covered: started by root, Chromium runs under an unprivileged user id, without capabilities, and cannot gain any; its
environment and its profile hold nothing of ours; what is made on disk is removed on close. Driver and browser are in
the group from their first instruction. Works on Linux; on macOS as an ordinary user.
Not covered: processes of other users' making under the same user id; Chromium from a snap, which cannot see the
directory that its profile is put in; Windows.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ponder.errors import BrowserError
from ponder.protocols import ProcessGroup
from ponder.tools.browser.folder import LaunchFolder, open_to_all, write_script

if TYPE_CHECKING:
    from playwright.async_api import Browser, Playwright

LAUNCH_S = 60.0
"""Seconds that a start may take: the first one on a cold disk is slow."""
BROWSER_UID = 61002
"""The user (and group) id that Chromium gets when ponder runs as root. It needs no entry in the user database."""

_STOP_S = 3.0
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_INSTALL = "`apt-get install chromium` or `python -m playwright install chromium`, or set PONDER_CHROMIUM to its path"
_NO_SANDBOX = ("no usable sandbox", "setuid sandbox", "zygote_host_impl", "credentials.cc", "move to new namespace")
_FEATURES_OFF = "WebUIOmniboxPopup,WebUIOmniboxAimPopup"
"""The address bar's pop-up, which every window of a headless Chromium draws too: 1 CPU second per branch, measured."""
_ARGUMENTS = (
    # Nothing of Chromium's own making goes to the network, and nothing at all goes around the proxy.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-domain-reliability",
    "--disable-sync",
    "--disable-quic",
    "--dns-prefetch-disable",
    "--no-first-run",
    "--no-pings",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--webrtc-ip-handling-policy=disable_non_proxied_udp",
    # The same in older Chromiums.
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--deny-permission-prompts",
    # A page that failed would load itself again, seconds later, in the midst of what the core does next.
    "--disable-auto-reload",
    # Software drawing is cheaper without a process of its own.
    "--disable-gpu",
    # A page's scripts run out of memory before the machine does.
    "--js-flags=--max-old-space-size=512",
)


class ChromiumProcess:
    """A running Chromium and its driver: `start`, then `browser`, then `stop`. Started again, it is a fresh one."""

    def __init__(
        self,
        group: ProcessGroup,
        *,
        executable: str | None = None,
        allow_unsandboxed: bool = False,
        uid: int = BROWSER_UID,
    ) -> None:
        self._group = group
        self._executable = executable
        self._allow_unsandboxed = allow_unsandboxed
        self._uid = uid if os.geteuid() == 0 else None
        self._folder: LaunchFolder | None = None
        self._driver: Playwright | None = None
        self.browser: Browser | None = None
        self.warnings: tuple[str, ...] = ()

    @property
    def alive(self) -> bool:
        """Say whether the browser still runs."""
        return self.browser is not None and self.browser.is_connected()

    async def start(self, proxy_url: str) -> Browser:
        """Start driver and browser, with all traffic going to this proxy. Raises BrowserError."""
        try:
            async with asyncio.timeout(LAUNCH_S):
                self._folder = LaunchFolder(self._uid)
                folder = self._folder.path
                self._driver = driver = await self._start_driver(folder)
                executable = find_chromium(self._executable, driver.chromium.executable_path, self._uid)
                wrapper = write_script(folder / "chromium", chromium_script(executable, folder / "profile", self._uid))
                self.browser = await self._launch(driver, str(wrapper), proxy_url)
                return self.browser
        except BrowserError:
            await self.stop()
            raise
        except TimeoutError:
            await self.stop()
            raise BrowserError(f"Chromium did not start in {LAUNCH_S:g} s") from None
        except Exception as error:
            reason = _first_lines(str(error))
            await self.stop()
            raise BrowserError(f"the browser cannot start: {reason}", fix="`ponder doctor` says more") from error
        except asyncio.CancelledError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End browser and driver and remove what they made. Safe to call twice."""
        browser, self.browser = self.browser, None
        driver, self._driver = self._driver, None
        folder, self._folder = self._folder, None
        for ending in (browser.close() if browser else None, driver.stop() if driver else None):
            if ending is not None:
                # Asked politely first, so that Playwright's own tasks end; the group's kill is what counts.
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(ending, _STOP_S)
        await asyncio.to_thread(self._group.kill)
        if folder is not None:
            await asyncio.to_thread(folder.remove)

    async def _start_driver(self, folder: Path) -> Playwright:
        from playwright.async_api import async_playwright

        pid_file = folder / "driver.pid"
        lines = (
            "#!/bin/sh",
            f"echo $$ > {shlex.quote(str(pid_file))}",
            f"export TMPDIR={shlex.quote(str(folder / 'driver'))}",
            f'exec {shlex.join(self._group.command([find_node()]))} "$@" 2>> {shlex.quote(str(folder / "driver.log"))}',
        )
        wrapper = write_script(folder / "node", "\n".join(lines) + "\n")
        with _environment("PLAYWRIGHT_NODEJS_PATH", str(wrapper)):
            starting = asyncio.ensure_future(async_playwright().start())
            try:
                driver = await asyncio.shield(starting)
            except asyncio.CancelledError:
                # Ended in the middle of its start it would leave tasks of Playwright's that complain on the terminal.
                with contextlib.suppress(Exception):
                    self._driver = await asyncio.wait_for(starting, _STOP_S)
                    self._group.attach(int(pid_file.read_text()))
                raise
        self._group.attach(int(pid_file.read_text()))
        return driver

    async def _launch(self, driver: Playwright, executable: str, proxy_url: str) -> Browser:
        from playwright.async_api import Error

        async def launch(sandbox: bool) -> Browser:
            return await driver.chromium.launch(
                executable_path=executable,
                headless=True,
                chromium_sandbox=sandbox,
                args=list(_ARGUMENTS),
                proxy={"server": proxy_url},
                timeout=LAUNCH_S * 1000,
                # Ctrl-C is for ponder to answer: it still needs the browser to say what it used.
                handle_sigint=False,
                handle_sigterm=False,
                handle_sighup=False,
            )

        try:
            return await launch(True)
        except Error as error:
            said = str(error).lower()
            if not any(sign in said for sign in _NO_SANDBOX):
                raise
            if not self._allow_unsandboxed:
                raise BrowserError(
                    "Chromium's own sandbox cannot work on this machine, and pages are untrusted",
                    fix="allow unprivileged user namespaces (`sysctl -w kernel.unprivileged_userns_clone=1 "
                    "kernel.apparmor_restrict_unprivileged_userns=0`), or accept the risk with allow_unsandboxed=True",
                ) from error
        self.warnings = ("Chromium runs WITHOUT its own sandbox: a page that breaks it reaches this user's files.",)
        return await launch(False)


def find_chromium(explicit: str | None, playwrights: str, uid: int | None) -> str:
    """Return the Chromium to run: the one named, PONDER_CHROMIUM, Playwright's own, or one on the PATH.

    Args:
        playwrights: where Playwright would have installed its own.
        uid: the user id that it will run under, when that is not ours.

    Raises:
        BrowserError: there is none, or the one that was named cannot be run.
    """
    named = explicit or os.environ.get("PONDER_CHROMIUM")
    if named:
        found = shutil.which(named)
        if found is None:
            raise BrowserError(f"{named} is not a program", fix="set PONDER_CHROMIUM to the path of Chromium")
        return found
    candidates = [playwrights, *(found for name in _NAMES if (found := shutil.which(name)))]
    for candidate in candidates:
        if os.access(candidate, os.X_OK) and (uid is None or open_to_all(Path(candidate))):
            return candidate
    raise BrowserError("there is no Chromium on this machine", fix=_INSTALL)


def find_node() -> str:
    """Return the node that runs Playwright's driver. Raises BrowserError when there is none."""
    import playwright

    bundled = Path(playwright.__file__).parent / "driver" / "node"
    found = os.environ.get("PLAYWRIGHT_NODEJS_PATH") or (str(bundled) if bundled.is_file() else shutil.which("node"))
    if not found:
        raise BrowserError("Playwright came without Node.js", fix="set PLAYWRIGHT_NODEJS_PATH to the path of node")
    return found


def chromium_script(executable: str, profile: Path, uid: int | None) -> str:
    """Return the shell script that Playwright runs as Chromium: a clean environment, another user, our profile.

    Raises:
        BrowserError: another user is wanted and `setpriv` is missing.
    """
    home = str(profile)
    variables = {"PATH": os.defpath, "LANG": "C.UTF-8", "DBUS_SESSION_BUS_ADDRESS": "disabled:"}
    private = ("HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR")
    variables |= dict.fromkeys(private, home)
    command = ["env", "-i", *(f"{name}={value}" for name, value in variables.items())]
    if uid is not None:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise BrowserError(
                "root may not run Chromium, and there is no setpriv to change the user",
                fix="`apt-get install util-linux`, or run ponder as an ordinary user",
            )
        command += [setpriv, f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        command += ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
    # Of a flag given twice only one counts, so Playwright's are changed: its profile directory, which Chromium's user
    # could not write to, and its list of features.
    ours = shlex.quote(f"--user-data-dir={home}")
    cases = f"--user-data-dir=*) a={ours};; --disable-features=*) a=$a,{_FEATURES_OFF};;"
    return (
        "#!/bin/sh\n"
        f'for a do shift; case $a in {cases} esac; set -- "$@" "$a"; done\n'
        f'exec {shlex.join([*command, executable])} "$@"\n'
    )


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set one variable of our own environment for a moment: the only way to tell Playwright which node to run."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _first_lines(text: str) -> str:
    return " ".join(text.split())[:500]

#pragma once

// Matrix products of repacked weights on x86, for any number of rows of activations: Q4_K and Q6_K with AVX2 or AVX-512
// VNNI, Q5_0 and Q8_0 with the latter.
//
// Eight interleaved columns of weights are unpacked once for each block, into the first-level cache, and
// multiplied with all rows: so that weights are read from memory once, however many rows there are. Eight weights of a
// column lie side by side, and meet eight activations that are broadcast: no shuffles. Up to four rows take the weights
// as they are unpacked, without the way through the cache.

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define GGML_ROWS 1

#include "ggml-common.h"
#include "repack.h"

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && defined(__AVX512VNNI__)
#include "rows-avx512.h"
#else
#include "rows-avx2.h"
#endif

namespace ggml::cpu::rows {

static const int MOST = 32;  // rows at once: activations of more would not stay in the second-level cache

template <int M, typename W, typename Get>
static inline void few(const W & w, const Get & get, const char * vy, size_t row_size, int64_t b, float * sums) {
    const typename W::activations * a[M];
    for (int m = 0; m < M; m++) {
        a[m] = (const typename W::activations *) (vy + m * row_size) + b;
    }
    w.template multiply<M>(get, a, sums);
}

template <typename W, typename Get>
static inline void up_to_four(int64_t rows, const W & w, const Get & get, const char * vy, size_t row_size, int64_t b, float * sums) {
    switch (rows) {
        case 1:  few<1>(w, get, vy, row_size, b, sums); break;
        case 2:  few<2>(w, get, vy, row_size, b, sums); break;
        case 3:  few<3>(w, get, vy, row_size, b, sums); break;
        default: few<4>(w, get, vy, row_size, b, sums); break;
    }
}

template <typename W>
static void multiply_some(int64_t n, float * s, size_t stride, const void * vx, const char * vy, size_t row_size, int64_t nr, int64_t nc) {
    const int64_t nb = n / W::K;
    W w;
    alignas(64) uint8_t q[W::VECTORS][sizeof(typename W::vector)];
    alignas(64) float sums[MOST][W::SUMS];
    for (int64_t x = 0; x < nc / 8; x++) {
        const typename W::block * column = (const typename W::block *) vx + x * nb;
        memset(sums, 0, nr * sizeof(sums[0]));
        for (int64_t b = 0; b < nb; b++) {
            const typename W::block & block = column[b];
            for (size_t at = 0; at < sizeof(block); at += 64) {
                _mm_prefetch((const char *) (&block + 2) + at, _MM_HINT_T0);  // nothing happens past the end
            }
            w.unpack(block);
            if (nr <= 4) {
                up_to_four(nr, w, [&](int i) { return W::weights(block, i); }, vy, row_size, b, sums[0]);
                continue;
            }
#pragma GCC unroll 64
            for (int i = 0; i < W::VECTORS; i++) {
                store(q[i], W::weights(block, i));
            }
            for (int64_t y = 0; y < nr; y += 4) {
                up_to_four(nr - y, w, [&](int i) { return load(q[i]); }, vy + y * row_size, row_size, b, sums[y]);
            }
        }
        for (int64_t y = 0; y < nr; y++) {
            W::finish(sums[y], s + y * stride + 8 * x);
        }
    }
}

// n: length of a row. s, stride: results, a row of activations after the other. vx: repacked weights. vy, row_size: rows
// as `quantize` makes them. nr: rows, nc: columns of weights, a multiple of eight.
template <typename W>
static void multiply(int64_t n, float * s, size_t stride, const void * vx, const char * vy, size_t row_size, int64_t nr, int64_t nc) {
    for (int64_t y = 0; y < nr; y += MOST) {
        multiply_some<W>(n, s + y * stride, stride, vx, vy + y * row_size, row_size, nr - y < MOST ? nr - y : MOST, nc);
    }
}

}  // namespace ggml::cpu::rows

#endif

#pragma once

// See rows.h. A vector holds eight weights of each of four columns: the first four, then the other four.

#include "rows.h"

namespace ggml::cpu::rows {

static inline __m256i load(const uint8_t * at) {
    return _mm256_load_si256((const __m256i *) at);
}

static inline void store(uint8_t * at, __m256i vector) {
    _mm256_store_si256((__m256i *) at, vector);
}

// as quantize_row_q8_K_ref does
static inline void quantize(const float * x, block_q8_K * y, int64_t n) {
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (int64_t b = 0; b < n / QK_K; b++, x += QK_K) {
        __m256 low = _mm256_loadu_ps(x), high = low;
        for (int i = 8; i < QK_K; i += 8) {
            const __m256 v = _mm256_loadu_ps(x + i);
            low  = _mm256_min_ps(low, v);
            high = _mm256_max_ps(high, v);
        }
        float lows[8], highs[8];
        _mm256_storeu_ps(lows, low);
        _mm256_storeu_ps(highs, high);
        float least = lows[0], most = highs[0];
        for (int i = 1; i < 8; i++) {
            least = lows[i] < least ? lows[i] : least;
            most  = highs[i] > most ? highs[i] : most;
        }
        const float max = -least > most ? least : most;
        if (max == 0.0f) {
            memset(&y[b], 0, sizeof(y[b]));
            continue;
        }
        const float iscale = -127.0f / max;
        const auto eight = [&](int i) {
            return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_set1_ps(iscale), _mm256_loadu_ps(x + i)));
        };
        for (int i = 0; i < QK_K; i += 32) {
            const __m256i first = _mm256_packs_epi32(eight(i), eight(i + 8)), second = _mm256_packs_epi32(eight(i + 16), eight(i + 24));
            const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(first, second), order);
            _mm256_storeu_si256((__m256i *) (y[b].qs + i), bytes);
            for (int j = 0; j < 2; j++) {
                const __m256i pairs = _mm256_madd_epi16(j ? second : first, _mm256_set1_epi16(1));
                __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
                sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
                sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
                y[b].bsums[i / 16 + j] = (int16_t) _mm_cvtsi128_si32(sum);
            }
        }
        y[b].d = 1 / iscale;
    }
}

static inline __m256i eight_of(const int8_t * a) {
    int64_t eight;
    memcpy(&eight, a, 8);
    return _mm256_set1_epi64x(eight);
}

// sums of the first four columns and of the others, each in pairs of lanes, as one of eight columns
static inline __m256i in_order(__m256i first, __m256i second) {
    return _mm256_permute4x64_epi64(_mm256_hadd_epi32(first, second), 0xd8);
}

static inline __m256 floats(const ggml_half * d) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) d));
}

// of eight bytes, the first four or the other four, four times each as 16 bits
static inline __m256i four_times(const uint8_t * bytes, int half) {
    const __m256i first  = _mm256_setr_epi8(0, -1, 0, -1, 0, -1, 0, -1, 1, -1, 1, -1, 1, -1, 1, -1,
                                            2, -1, 2, -1, 2, -1, 2, -1, 3, -1, 3, -1, 3, -1, 3, -1);
    const __m256i second = _mm256_setr_epi8(4, -1, 4, -1, 4, -1, 4, -1, 5, -1, 5, -1, 5, -1, 5, -1,
                                            6, -1, 6, -1, 6, -1, 6, -1, 7, -1, 7, -1, 7, -1, 7, -1);
    const __m256i both = _mm256_broadcastsi128_si256(_mm_loadl_epi64((const __m128i *) bytes));
    return _mm256_shuffle_epi8(both, half ? second : first);
}

// A block of 256 of eight columns: what all rows share. Vectors of weights are numbered in the order in which they are
// used: those of the first four columns, then those of the others.
template <typename Block> struct of_256 {
    using block = Block;
    using activations = block_q8_K;
    using vector = __m256i;

    static constexpr int K = QK_K, VECTORS = 64, SUMS = 8;

    static inline void finish(const float * sums, float * s) {
        _mm256_storeu_ps(s, _mm256_load_ps(sums));
    }
};

struct q4_K : of_256<block_q4_Kx8> {
    __m256i scales[2][8];
    __m256i mins[4];  // pairs of 32s: (0, 4), (1, 5), (2, 6), (3, 7)
    __m256  d, dmin;

    // i: [half of the columns][64 of 256][8 of 32][low, high]
    static inline __m256i weights(const block & w, int i) {
        const __m256i raw = _mm256_loadu_si256((const __m256i *) (w.qs + 64 * (i % 32 / 2) + 32 * (i / 32)));
        return _mm256_and_si256(i % 2 ? _mm256_srli_epi16(raw, 4) : raw, _mm256_set1_epi8(0x0f));
    }

    void unpack(const block & w) {
        // each 12 bytes: eight scales and eight minima of 6 bits
        const __m256i one   = _mm256_setr_epi32(0, 2, 1, 2, 3, 5, 4, 5);
        const __m256i other = _mm256_setr_epi32(0, 0, 1, 1, 3, 3, 4, 4);
        const __m256i shift = _mm256_setr_epi32(0, 0, 0, 4, 0, 0, 0, 4);
        const __m256i low   = _mm256_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f);
        const __m256i high  = _mm256_setr_epi32(0, 0x30303030, 0, 0x30303030, 0, 0x30303030, 0, 0x30303030);
        alignas(32) uint8_t six[8][16];
        for (int i = 0; i < 4; i++) {
            const __m256i raw = _mm256_loadu_si256((const __m256i *) (w.scales + 24 * i));  // the last one reads weights, too
            _mm256_store_si256((__m256i *) six[2 * i], _mm256_or_si256(
                _mm256_and_si256(_mm256_srlv_epi32(_mm256_permutevar8x32_epi32(raw, one), shift), low),
                _mm256_and_si256(_mm256_srli_epi32(_mm256_permutevar8x32_epi32(raw, other), 2), high)));
        }
        for (int s = 0; s < 8; s++) {
            scales[0][s] = four_times(six[s], 0);
            scales[1][s] = four_times(six[s], 1);
        }
        for (int s = 0; s < 4; s++) {
            mins[s] = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(_mm_load_si128((const __m128i *) six[s]),
                                                             _mm_load_si128((const __m128i *) six[s + 4])));
        }
        d    = floats(w.d);
        dmin = floats(w.dmin);
    }

    template <int M, typename Get> inline void multiply(const Get & get, const block_q8_K * const * a, float * acc) const {
        __m256i sum[2][M];
        for (int half = 0; half < 2; half++) {
            for (int m = 0; m < M; m++) {
                sum[half][m] = _mm256_setzero_si256();
            }
#pragma GCC unroll 4
            for (int sb = 0; sb < 4; sb++) {
                __m256i low[M], high[M];
                for (int m = 0; m < M; m++) {
                    low[m] = high[m] = _mm256_setzero_si256();
                }
#pragma GCC unroll 4
                for (int k = 0; k < 4; k++) {
                    const __m256i wl = get(32 * half + 8 * sb + 2 * k), wh = get(32 * half + 8 * sb + 2 * k + 1);
                    // eight products of at most 15 * 128 fit into 16 bits
                    for (int m = 0; m < M; m++) {
                        low[m]  = _mm256_add_epi16(low[m], _mm256_maddubs_epi16(wl, eight_of(a[m]->qs + 64 * sb + 8 * k)));
                        high[m] = _mm256_add_epi16(high[m], _mm256_maddubs_epi16(wh, eight_of(a[m]->qs + 64 * sb + 32 + 8 * k)));
                    }
                }
                for (int m = 0; m < M; m++) {
                    sum[half][m] = _mm256_add_epi32(sum[half][m], _mm256_add_epi32(_mm256_madd_epi16(low[m], scales[half][2 * sb]),
                                                                                   _mm256_madd_epi16(high[m], scales[half][2 * sb + 1])));
                }
            }
        }
        for (int m = 0; m < M; m++) {
            const __m256i b16 = _mm256_loadu_si256((const __m256i *) a[m]->bsums);
            const __m128i b32 = _mm_hadd_epi16(_mm256_castsi256_si128(b16), _mm256_extracti128_si256(b16, 1));
            const __m128i two = _mm_unpacklo_epi16(b32, _mm_bsrli_si128(b32, 8));
            __m256i less = _mm256_madd_epi16(mins[0], _mm256_broadcastd_epi32(two));
            less = _mm256_add_epi32(less, _mm256_madd_epi16(mins[1], _mm256_broadcastd_epi32(_mm_shuffle_epi32(two, 1))));
            less = _mm256_add_epi32(less, _mm256_madd_epi16(mins[2], _mm256_broadcastd_epi32(_mm_shuffle_epi32(two, 2))));
            less = _mm256_add_epi32(less, _mm256_madd_epi16(mins[3], _mm256_broadcastd_epi32(_mm_shuffle_epi32(two, 3))));
            const __m256 whole = _mm256_mul_ps(d, _mm256_cvtepi32_ps(in_order(sum[0][m], sum[1][m])));
            const __m256 now   = _mm256_fnmadd_ps(dmin, _mm256_cvtepi32_ps(less), whole);
            float * own = acc + SUMS * m;
            _mm256_store_ps(own, _mm256_fmadd_ps(now, _mm256_set1_ps(a[m]->d), _mm256_load_ps(own)));
        }
    }
};

struct q6_K : of_256<block_q6_Kx8> {
    __m256i scales[2][16];  // of 16s
    __m256i offsets[8];     // scales as pairs of 16s: (0, 8), (1, 9), ...
    __m256  d;

    // i: [half of the columns][128 of 256][16 of 32][32 of 128][8 of 16]
    static inline __m256i weights(const block & w, int i) {
        const int half = i / 16 % 2, k = i / 8 % 2 * 2 + i % 2, g = i / 2 % 4, four = 32 * (i / 32);
        const __m256i low  = _mm256_loadu_si256((const __m256i *) (w.ql + 64 * (8 * half + k + g % 2 * 4) + four));
        const __m256i high = _mm256_loadu_si256((const __m256i *) (w.qh + 64 * (4 * half + k) + four));
        const __m256i bits = g == 0 ? _mm256_slli_epi16(high, 4) : g == 1 ? _mm256_slli_epi16(high, 2) :
                             g == 2 ? high : _mm256_srli_epi16(high, 2);
        return _mm256_or_si256(_mm256_and_si256(g < 2 ? low : _mm256_srli_epi16(low, 4), _mm256_set1_epi8(0x0f)),
                               _mm256_and_si256(bits, _mm256_set1_epi8(0x30)));
    }

    void unpack(const block & w) {
        for (int s = 0; s < 16; s++) {
            // the bytes' signs go into the upper halves
            for (int half = 0; half < 2; half++) {
                const __m256i bytes = four_times((const uint8_t *) w.scales + 8 * s, half);
                scales[half][s] = _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8);
            }
        }
        for (int s = 0; s < 8; s++) {
            offsets[s] = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *) (w.scales + 8 * s)),
                                                                _mm_loadl_epi64((const __m128i *) (w.scales + 64 + 8 * s))));
        }
        d = floats(w.d);
    }

    template <int M, typename Get> inline void multiply(const Get & get, const block_q8_K * const * a, float * acc) const {
        __m256i sum[2][M];
        for (int four = 0; four < 2; four++) {
            for (int m = 0; m < M; m++) {
                sum[four][m] = _mm256_setzero_si256();
            }
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
#pragma GCC unroll 2
                for (int p = 0; p < 2; p++) {
#pragma GCC unroll 4
                    for (int g = 0; g < 4; g++) {
                        const int i = 32 * four + 16 * half + 8 * p + 2 * g, at = 128 * half + 32 * g + 16 * p;
                        const __m256i w0 = get(i), w1 = get(i + 1);
                        // four products of at most 63 * 128 fit into 16 bits
                        for (int m = 0; m < M; m++) {
                            const __m256i t = _mm256_add_epi16(_mm256_maddubs_epi16(w0, eight_of(a[m]->qs + at)),
                                                               _mm256_maddubs_epi16(w1, eight_of(a[m]->qs + at + 8)));
                            sum[four][m] = _mm256_add_epi32(sum[four][m], _mm256_madd_epi16(t, scales[four][at / 16]));
                        }
                    }
                }
            }
        }
        for (int m = 0; m < M; m++) {
            const __m128i b0 = _mm_loadu_si128((const __m128i *) a[m]->bsums);
            const __m128i b8 = _mm_loadu_si128((const __m128i *) (a[m]->bsums + 8));
            alignas(32) int32_t two[8];
            _mm_store_si128((__m128i *) two, _mm_unpacklo_epi16(b0, b8));
            _mm_store_si128((__m128i *) (two + 4), _mm_unpackhi_epi16(b0, b8));
            __m256i less = _mm256_setzero_si256();
            for (int s = 0; s < 8; s++) {
                less = _mm256_add_epi32(less, _mm256_madd_epi16(offsets[s], _mm256_set1_epi32(two[s])));
            }
            const __m256i whole = _mm256_sub_epi32(in_order(sum[0][m], sum[1][m]), _mm256_slli_epi32(less, 5));
            const __m256  da    = _mm256_mul_ps(d, _mm256_set1_ps(a[m]->d));
            float * own = acc + SUMS * m;
            _mm256_store_ps(own, _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole), da, _mm256_load_ps(own)));
        }
    }
};

}  // namespace ggml::cpu::rows

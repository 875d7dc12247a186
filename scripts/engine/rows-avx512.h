#pragma once

// See rows.h. A vector holds eight weights of each of the eight columns.

#include "rows.h"

namespace ggml::cpu::rows {

static inline __m512i load(const uint8_t * at) {
    return _mm512_load_si512(at);
}

static inline void store(uint8_t * at, __m512i vector) {
    _mm512_store_si512(at, vector);
}

// lanes 2c and 2c + 1 of a vector belong to column c
static inline __m512 for_pairs(const ggml_half * d) {
    const __m512i pairs = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    return _mm512_permutexvar_ps(pairs, _mm512_castps256_ps512(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) d))));
}

static inline __m256 sums_of_pairs(__m512 pairs) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 0, 2, 4, 6, 8, 10, 12, 14);
    return _mm512_castps512_ps256(_mm512_permutexvar_ps(even, _mm512_add_ps(pairs, _mm512_permute_ps(pairs, 0xb1))));
}

// lanes c and c + 8 of a vector belong to column c
static inline __m512 for_halves(const ggml_half * d) {
    return _mm512_broadcast_f32x8(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) d)));
}

// as quantize_row_q8_K_ref does
static inline void quantize(const float * x, block_q8_K * y, int64_t n) {
    for (int64_t b = 0; b < n / QK_K; b++, x += QK_K) {
        __m512 low = _mm512_loadu_ps(x), high = low;
        for (int i = 16; i < QK_K; i += 16) {
            const __m512 v = _mm512_loadu_ps(x + i);
            low  = _mm512_min_ps(low, v);
            high = _mm512_max_ps(high, v);
        }
        const float least = _mm512_reduce_min_ps(low), most = _mm512_reduce_max_ps(high);
        const float max   = -least > most ? least : most;
        if (max == 0.0f) {
            memset(&y[b], 0, sizeof(y[b]));
            continue;
        }
        const float iscale = -127.0f / max;
        for (int i = 0; i < QK_K; i += 16) {
            const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_set1_ps(iscale), _mm512_loadu_ps(x + i)));
            _mm_storeu_si128((__m128i *) (y[b].qs + i), _mm512_cvtsepi32_epi8(q));
            y[b].bsums[i / 16] = (int16_t) _mm512_reduce_add_epi32(q);
        }
        y[b].d = 1 / iscale;
    }
}

static inline __m512i eight_of(const int8_t * a) {
    int64_t eight;
    memcpy(&eight, a, 8);
    return _mm512_set1_epi64(eight);
}

static inline __m512i twice(__m512i indices, __m256i words) {
    return _mm512_permutexvar_epi32(indices, _mm512_castsi256_si512(words));
}

static inline __m512i first_and(int one, int other) {
    return _mm512_inserti64x4(_mm512_set1_epi32(one), _mm256_set1_epi32(other), 1);
}

// A block of 256 of eight columns: what all rows share. Sums over products are kept in pairs of lanes, those that take
// the weights' offset away in halves. Vectors of weights are numbered in the order in which they are used.
template <typename Block> struct of_256 {
    using block = Block;
    using activations = block_q8_K;
    using vector = __m512i;

    static constexpr int K = QK_K, VECTORS = 32, SUMS = 32;

    static inline void finish(const float * sums, float * s) {
        const __m512 halves = _mm512_loadu_ps(sums + 16);
        const __m256 less   = _mm256_add_ps(_mm512_castps512_ps256(halves), _mm512_extractf32x8_ps(halves, 1));
        _mm256_storeu_ps(s, _mm256_sub_ps(sums_of_pairs(_mm512_loadu_ps(sums)), less));
    }
};

struct q4_K : of_256<block_q4_Kx8> {
    __m512i scales[8];
    __m512i mins[2];                // pairs of 32s: (0, 4 | 1, 5), (2, 6 | 3, 7)
    __m512  d, dmin;

    // i: [64 of 256][8 of 32][low, high]
    static inline __m512i weights(const block & w, int i) {
        const __m512i raw = _mm512_loadu_si512(w.qs + 64 * (i / 2));
        return _mm512_and_si512(i % 2 ? _mm512_srli_epi16(raw, 4) : raw, _mm512_set1_epi8(0x0f));
    }

    void unpack(const block & w) {
        // each 12 bytes: eight scales and eight minima of 6 bits
        const __m512i one   = _mm512_setr_epi32(0, 2, 1, 2, 3, 5, 4, 5, 6, 8, 7, 8, 9, 11, 10, 11);
        const __m512i other = _mm512_setr_epi32(0, 0, 1, 1, 3, 3, 4, 4, 6, 6, 7, 7, 9, 9, 10, 10);
        const __m512i shift = _mm512_setr_epi32(0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4);
        const __m512i low   = _mm512_broadcast_i32x4(_mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
        const __m512i high  = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x30303030, 0, 0x30303030));
        __m512i six[2];
        for (int i = 0; i < 2; i++) {
            const __m512i raw = _mm512_maskz_loadu_epi32(0x0fff, w.scales + 48 * i);
            six[i] = _mm512_or_si512(
                _mm512_and_si512(_mm512_srlv_epi32(_mm512_permutexvar_epi32(one, raw), shift), low),
                _mm512_and_si512(_mm512_srli_epi32(_mm512_permutexvar_epi32(other, raw), 2), high));
        }
        alignas(64) uint8_t pairs[128];
        _mm512_store_si512(pairs, _mm512_unpacklo_epi8(six[0], six[0]));
        _mm512_store_si512(pairs + 64, _mm512_unpacklo_epi8(six[1], six[1]));
        for (int s = 0; s < 8; s++) {
            scales[s] = _mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *) (pairs + 16 * s)));
        }
        const __m512i both = _mm512_unpackhi_epi8(six[0], six[1]);
        mins[0] = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(both));
        mins[1] = _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(both, 1));
        d    = for_pairs(w.d);
        dmin = for_halves(w.dmin);
    }

    template <int M, typename Get> inline void multiply(const Get & get, const block_q8_K * const * a, float * acc) const {
        __m512i sum[M];
        for (int m = 0; m < M; m++) {
            sum[m] = _mm512_setzero_si512();
        }
#pragma GCC unroll 4
        for (int sb = 0; sb < 4; sb++) {
            __m512i low[M], high[M];
            for (int m = 0; m < M; m++) {
                low[m] = high[m] = _mm512_setzero_si512();
            }
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) {
                const __m512i wl = get(8 * sb + 2 * k), wh = get(8 * sb + 2 * k + 1);
                for (int m = 0; m < M; m++) {
                    low[m]  = _mm512_dpbusd_epi32(low[m], wl, eight_of(a[m]->qs + 64 * sb + 8 * k));
                    high[m] = _mm512_dpbusd_epi32(high[m], wh, eight_of(a[m]->qs + 64 * sb + 32 + 8 * k));
                }
            }
            // 16 products of at most 15 * 128 fit into 16 bits
            for (int m = 0; m < M; m++) {
                sum[m] = _mm512_add_epi32(sum[m], _mm512_add_epi32(_mm512_madd_epi16(low[m], scales[2 * sb]),
                                                                   _mm512_madd_epi16(high[m], scales[2 * sb + 1])));
            }
        }
        const __m512i first = first_and(0, 1), second = first_and(2, 3);
        for (int m = 0; m < M; m++) {
            const __m256i b16  = _mm256_loadu_si256((const __m256i *) a[m]->bsums);
            const __m128i b32  = _mm_hadd_epi16(_mm256_castsi256_si128(b16), _mm256_extracti128_si256(b16, 1));
            const __m256i two  = _mm256_castsi128_si256(_mm_unpacklo_epi16(b32, _mm_bsrli_si128(b32, 8)));
            const __m512i less = _mm512_add_epi32(_mm512_madd_epi16(mins[0], twice(first, two)),
                                                  _mm512_madd_epi16(mins[1], twice(second, two)));
            const __m512 da = _mm512_set1_ps(a[m]->d);
            float * own = acc + 32 * m;
            _mm512_storeu_ps(own, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[m]), _mm512_mul_ps(d, da), _mm512_loadu_ps(own)));
            _mm512_storeu_ps(own + 16, _mm512_fmadd_ps(_mm512_cvtepi32_ps(less), _mm512_mul_ps(dmin, da), _mm512_loadu_ps(own + 16)));
        }
    }
};

struct q6_K : of_256<block_q6_Kx8> {
    __m512  scales[16];             // of 16s
    __m512i offsets[4];             // scales as pairs of 16s: (0, 8 | 2, 10), (4, 12 | 6, 14), (1, 9 | 3, 11), (5, 13 | 7, 15)
    __m512  d, d32;

    // i: [128 of 256][16 of 32][32 of 128][8 of 16]
    static inline __m512i weights(const block & w, int i) {
        const int half = i / 16, k = i / 8 % 2 * 2 + i % 2, g = i / 2 % 4;
        const __m512i low  = _mm512_loadu_si512(w.ql + 64 * (8 * half + k + g % 2 * 4));
        const __m512i high = _mm512_loadu_si512(w.qh + 64 * (4 * half + k));
        const __m512i bits = g == 0 ? _mm512_slli_epi16(high, 4) : g == 1 ? _mm512_slli_epi16(high, 2) :
                             g == 2 ? high : _mm512_srli_epi16(high, 2);
        return _mm512_ternarylogic_epi32(g < 2 ? low : _mm512_srli_epi16(low, 4), _mm512_set1_epi8(0x0f),
                                         _mm512_and_si512(bits, _mm512_set1_epi8(0x30)), 0xea);  // a & b | c
    }

    void unpack(const block & w) {
        const __m512i s0 = _mm512_loadu_si512(w.scales), s8 = _mm512_loadu_si512(w.scales + 64);
        alignas(64) int8_t pairs[4][64];
        _mm512_store_si512(pairs[0], _mm512_unpacklo_epi8(s0, s0));
        _mm512_store_si512(pairs[1], _mm512_unpackhi_epi8(s0, s0));
        _mm512_store_si512(pairs[2], _mm512_unpacklo_epi8(s8, s8));
        _mm512_store_si512(pairs[3], _mm512_unpackhi_epi8(s8, s8));
        for (int s = 0; s < 16; s++) {
            const __m128i own = _mm_load_si128((const __m128i *) (pairs[s / 8 * 2 + s % 2] + s % 8 / 2 * 16));
            scales[s] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(own));
        }
        const __m512i even = _mm512_unpacklo_epi8(s0, s8), odd = _mm512_unpackhi_epi8(s0, s8);
        offsets[0] = _mm512_cvtepi8_epi16(_mm512_castsi512_si256(even));
        offsets[1] = _mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64(even, 1));
        offsets[2] = _mm512_cvtepi8_epi16(_mm512_castsi512_si256(odd));
        offsets[3] = _mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64(odd, 1));
        d   = for_pairs(w.d);
        d32 = _mm512_mul_ps(for_halves(w.d), _mm512_set1_ps(32.0f));
    }

    template <int M, typename Get> inline void multiply(const Get & get, const block_q8_K * const * a, float * acc) const {
        __m512 sum[M];
        for (int m = 0; m < M; m++) {
            sum[m] = _mm512_setzero_ps();
        }
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
#pragma GCC unroll 2
            for (int p = 0; p < 2; p++) {
#pragma GCC unroll 4
                for (int g = 0; g < 4; g++) {
                    const int i = 16 * half + 8 * p + 2 * g;
                    const __m512i w0 = get(i), w1 = get(i + 1);
                    const int at = 128 * half + 32 * g + 16 * p;
                    for (int m = 0; m < M; m++) {
                        __m512i t = _mm512_dpbusd_epi32(_mm512_setzero_si512(), w0, eight_of(a[m]->qs + at));
                        t = _mm512_dpbusd_epi32(t, w1, eight_of(a[m]->qs + at + 8));
                        sum[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(t), scales[at / 16], sum[m]);
                    }
                }
            }
        }
        const __m512i at[4] = { first_and(0, 2), first_and(4, 6), first_and(1, 3), first_and(5, 7) };
        for (int m = 0; m < M; m++) {
            const __m128i b0 = _mm_loadu_si128((const __m128i *) a[m]->bsums);
            const __m128i b8 = _mm_loadu_si128((const __m128i *) (a[m]->bsums + 8));
            const __m256i two = _mm256_set_m128i(_mm_unpackhi_epi16(b0, b8), _mm_unpacklo_epi16(b0, b8));
            __m512i less = _mm512_setzero_si512();
            for (int i = 0; i < 4; i++) {
                less = _mm512_add_epi32(less, _mm512_madd_epi16(offsets[i], twice(at[i], two)));
            }
            const __m512 da = _mm512_set1_ps(a[m]->d);
            float * own = acc + 32 * m;
            _mm512_storeu_ps(own, _mm512_fmadd_ps(sum[m], _mm512_mul_ps(d, da), _mm512_loadu_ps(own)));
            _mm512_storeu_ps(own + 16, _mm512_fmadd_ps(_mm512_cvtepi32_ps(less), _mm512_mul_ps(d32, da), _mm512_loadu_ps(own + 16)));
        }
    }
};

// --- weights in blocks of 32: four of them together ----------------------------------------------------------

// activations, four blocks of 32
struct q8_32x4 {
    ggml_half d[4];
    int16_t   sums[4];
    int8_t    qs[128];
};

static_assert(sizeof(q8_32x4) == 4 * sizeof(block_q8_1), "they lie where rows of Q8_1 would");

// as quantize_row_q8_1_ref does, but for the sums, which are those of the quants
static inline void quantize(const float * x, q8_32x4 * y, int64_t n) {
    for (int64_t b = 0; b < n / 128; b++) {
        for (int j = 0; j < 4; j++, x += 32) {
            const __m512 one = _mm512_loadu_ps(x), two = _mm512_loadu_ps(x + 16);
            const float  most  = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(one), _mm512_abs_ps(two)));
            const float  scale = most != 0.0f ? 127.0f / most : 0.0f;
            const __m512i q1 = _mm512_cvtps_epi32(_mm512_mul_ps(one, _mm512_set1_ps(scale)));
            const __m512i q2 = _mm512_cvtps_epi32(_mm512_mul_ps(two, _mm512_set1_ps(scale)));
            _mm_storeu_si128((__m128i *) (y[b].qs + 32 * j), _mm512_cvtsepi32_epi8(q1));
            _mm_storeu_si128((__m128i *) (y[b].qs + 32 * j + 16), _mm512_cvtsepi32_epi8(q2));
            y[b].d[j]    = _cvtss_sh(most / 127.0f, 0);
            y[b].sums[j] = (int16_t) _mm512_reduce_add_epi32(_mm512_add_epi32(q1, q2));
        }
    }
}

struct block_q5_0x8 {
    ggml_half d[8];
    uint64_t  qh[4];       // fifth bits: [8 of 32][column][8]
    uint8_t   qs[2][64];   // [8 of 16][column][8]: low nibbles are the first half of 32, high ones the other
};

struct block_q8_0x8 {
    ggml_half d[8];
    uint8_t   qs[4][64];   // [8 of 32][column][8], 128 too large
};

static_assert(sizeof(block_q5_0x8) == 8 * sizeof(block_q5_0) && sizeof(block_q8_0x8) == 8 * sizeof(block_q8_0), "wrong block size");

// Plain: a block of one column; One: of eight; OFFSET: what their weights are too large by.
template <typename Plain, typename One, int OFFSET> struct of_32s {
    using plain = Plain;
    using one   = One;
    using activations = q8_32x4;
    using vector = __m512i;

    struct block {
        One j[4];
    };

    static constexpr int K = 128, VECTORS = 16, SUMS = 16;

    static inline void finish(const float * sums, float * s) {
        _mm256_storeu_ps(s, sums_of_pairs(_mm512_loadu_ps(sums)));
    }

    __m512 d[4];

    void unpack(const block & w) {
        for (int j = 0; j < 4; j++) {
            d[j] = for_pairs(w.j[j].d);
        }
    }

    template <int M, typename Get> inline void multiply(const Get & get, const q8_32x4 * const * a, float * acc) const {
        __m512  sum[M], da[M];
        __m512i less[M];
        for (int m = 0; m < M; m++) {
            sum[m]  = _mm512_loadu_ps(acc + SUMS * m);
            da[m]   = _mm512_castps128_ps512(_mm_cvtph_ps(_mm_loadl_epi64((const __m128i *) a[m]->d)));
            less[m] = _mm512_castsi128_si512(_mm_mullo_epi32(_mm_cvtepi16_epi32(_mm_loadl_epi64((const __m128i *) a[m]->sums)),
                                                             _mm_set1_epi32(-OFFSET)));
        }
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            const __m512i at = _mm512_set1_epi32(j);
            __m512i t[M];
            for (int m = 0; m < M; m++) {
                t[m] = _mm512_maskz_permutexvar_epi32(0x5555, at, less[m]);  // once for the two lanes of a column
            }
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) {
                const __m512i w = get(4 * j + k);
                for (int m = 0; m < M; m++) {
                    t[m] = _mm512_dpbusd_epi32(t[m], w, eight_of(a[m]->qs + 32 * j + 8 * k));
                }
            }
            for (int m = 0; m < M; m++) {
                const __m512 scale = _mm512_mul_ps(d[j], _mm512_permutexvar_ps(at, da[m]));
                sum[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(t[m]), scale, sum[m]);
            }
        }
        for (int m = 0; m < M; m++) {
            _mm512_storeu_ps(acc + SUMS * m, sum[m]);
        }
    }
};

struct q5_0 : of_32s<block_q5_0, block_q5_0x8, 16> {
    static inline __m512i weights(const block & w, int i) {
        const one & own = w.j[i / 4];
        const __m512i raw  = _mm512_loadu_si512(own.qs[i % 2]);
        const __m512i four = _mm512_and_si512(i % 4 < 2 ? raw : _mm512_srli_epi16(raw, 4), _mm512_set1_epi8(0x0f));
        return _mm512_mask_add_epi8(four, own.qh[i % 4], four, _mm512_set1_epi8(0x10));
    }

    static one interleave(const block_q5_0 * in) {
        one out = {};
        for (int c = 0; c < 8; c++) {
            out.d[c] = in[c].d;
            memcpy(out.qs[0] + 8 * c, in[c].qs, 8);
            memcpy(out.qs[1] + 8 * c, in[c].qs + 8, 8);
            for (int k = 0; k < 4; k++) {
                out.qh[k] |= (uint64_t) in[c].qh[k] << (8 * c);
            }
        }
        return out;
    }
};

struct q8_0 : of_32s<block_q8_0, block_q8_0x8, 128> {
    static inline __m512i weights(const block & w, int i) {
        return _mm512_loadu_si512(w.j[i / 4].qs[i % 4]);
    }

    static one interleave(const block_q8_0 * in) {
        one out;
        for (int c = 0; c < 8; c++) {
            out.d[c] = in[c].d;
            for (int i = 0; i < 32; i++) {
                out.qs[i / 8][8 * c + i % 8] = (uint8_t) (in[c].qs[i] ^ 0x80);
            }
        }
        return out;
    }
};

#define GGML_ROWS_32 1

}  // namespace ggml::cpu::rows

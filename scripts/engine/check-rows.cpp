// Products of rows.h against those of dequantised weights, for all numbers of rows that differ in the code; and
// against llama.cpp's own kernels, how fast. Ends with 1 where a figure is off. Says nothing on a CPU that has none.

#include "repack.cpp"
#include "quants.h"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <functional>
#include <random>
#include <vector>

#if defined(GGML_ROWS)

static const int ROWS = 37;
static const double CLOSE = 1e-5;  // of the largest result

static double cpu_ms() {
    return 1e3 * clock() / CLOCKS_PER_SEC;
}

static double fastest(const std::function<void()> & run) {
    double best = 1e9;
    for (int i = 0; i < 3; i++) {
        const double before = cpu_ms();
        run();
        best = std::min(best, cpu_ms() - before);
    }
    return best;
}

template <typename W, typename Block>
static bool check(ggml_type type, int n, int nc, typename W::block (*interleave)(Block *, unsigned int)) {
    std::mt19937 draw(1);
    std::normal_distribution<float> normal;
    const int    nb       = n / QK_K;
    const size_t row_size = ggml_row_size(type, n), a_size = ggml_row_size(GGML_TYPE_Q8_K, n);

    std::vector<float> weights((size_t) n * nc), activations((size_t) n * ROWS), got((size_t) nc * ROWS);
    for (float & one : weights) {
        one = normal(draw);
    }
    for (float & one : activations) {
        one = normal(draw);
    }
    std::vector<char> quantised(row_size * nc), rows(a_size * ROWS);
    ggml_quantize_chunk(type, weights.data(), quantised.data(), 0, nc, n, nullptr);
    for (int m = 0; m < ROWS; m++) {
        ggml_get_type_traits_cpu(GGML_TYPE_Q8_K)->from_float(activations.data() + (size_t) m * n, rows.data() + a_size * m, n);
    }
    std::vector<char> own_rows(rows.size());
    ggml::cpu::rows::quantize(activations.data(), (block_q8_K *) own_rows.data(), (int64_t) n * ROWS);
    bool good = own_rows == rows;
    if (!good) {
        printf("%s: rows of %d are quantised in another way\n", ggml_type_name(type), n);
    }
    for (int c = 0; c < nc; c++) {
        ggml_get_type_traits(type)->to_float(quantised.data() + row_size * c, weights.data() + (size_t) c * n, n);
    }
    std::vector<typename W::block> repacked((size_t) nb * nc / 8);
    for (size_t i = 0; i < repacked.size(); i++) {
        Block eight[8];
        for (int j = 0; j < 8; j++) {
            eight[j] = ((const Block *) (quantised.data() + row_size * (i / nb * 8 + j)))[i % nb];
        }
        repacked[i] = interleave(eight, 8);
    }

    for (const int nr : { 1, 2, 3, 4, 5, 32, ROWS }) {
        std::fill(got.begin(), got.end(), NAN);
        ggml::cpu::rows::multiply<W>(n, got.data(), nc, repacked.data(), rows.data(), a_size, nr, nc);
        double worst = 0, largest = 0;
        for (int m = 0; m < nr; m++) {
            const block_q8_K * a = (const block_q8_K *) (rows.data() + a_size * m);
            for (int c = 0; c < nc; c += 13) {
                double wanted = 0;
                for (int k = 0; k < n; k++) {
                    wanted += (double) a[k / QK_K].d * a[k / QK_K].qs[k % QK_K] * weights[(size_t) c * n + k];
                }
                const double off = std::fabs(wanted - got[(size_t) m * nc + c]);
                worst   = off <= worst ? worst : off;  // NAN stays
                largest = std::max(largest, std::fabs(wanted));
            }
        }
        good = good && worst <= CLOSE * largest;
        if (!(worst <= CLOSE * largest)) {
            printf("%s, %d rows of %d: off by %g, results up to %g\n", ggml_type_name(type), nr, n, worst, largest);
        }
    }

    printf("%s:", ggml_type_name(type));
    for (const int nr : { 1, 2, 4, 16 }) {
        const double own = fastest([&] {
            ggml::cpu::rows::multiply<W>(n, got.data(), nc, repacked.data(), rows.data(), a_size, nr, nc);
        });
        const double theirs = fastest([&] {
            if constexpr (sizeof(Block) == sizeof(block_q4_K)) {
                if (nr >= 4) {
                    ggml_gemm_q4_K_8x8_q8_K(n, got.data(), nc, repacked.data(), rows.data(), nr, nc);
                }
                for (int m = nr & ~3; m < nr; m++) {
                    ggml_gemv_q4_K_8x8_q8_K(n, got.data(), nc, repacked.data(), rows.data() + a_size * m, 1, nc);
                }
            } else {
                for (int c = 0; c < nc; c++) {
                    for (int m = 0; m < nr; m++) {
                        ggml_vec_dot_q6_K_q8_K(n, got.data(), 0, quantised.data() + row_size * c, 0, rows.data() + a_size * m, 0, 1);
                    }
                }
            }
        });
        printf("%s %d rows %.1f times as fast", nr > 1 ? "," : "", nr, theirs / own);
    }
    printf("\n");
    return good;
}

int main() {
    ggml_cpu_init();
    bool good = true;
    for (const int n : { 256, 1536 }) {
        good = check<ggml::cpu::rows::q4_K>(GGML_TYPE_Q4_K, n, 4096, make_block_q4_Kx8) && good;
        good = check<ggml::cpu::rows::q6_K>(GGML_TYPE_Q6_K, n, 4096, make_block_q6_Kx8) && good;
    }
    return good ? 0 : 1;
}

#else

int main() {
    return 0;
}

#endif

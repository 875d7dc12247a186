// Products of rows.h against those of dequantised weights, for all numbers of rows that differ in the code; and against
// llama.cpp's own (repacked where it has such, else dot products), how fast. Ends with 1 where a figure is off. Does
// nothing on a CPU that has none.

#include "repack.cpp"
#include "quants.h"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <functional>
#include <random>
#include <vector>

#if defined(GGML_ROWS)

using namespace ggml::cpu;

static const int ROWS = 37, COLUMNS = 4096;
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

static double at(const block_q8_K * a, int k) {
    return (double) a[k / QK_K].d * a[k / QK_K].qs[k % QK_K];
}

#if defined(GGML_ROWS_32)
static double at(const rows::q8_32x4 * a, int k) {
    return (double) ggml_fp16_to_fp32(a[k / 128].d[k % 128 / 32]) * a[k / 128].qs[k % 128];
}
#endif

static std::vector<float> drawn(size_t n) {
    static std::mt19937 draw(1);
    std::normal_distribution<float> normal;
    std::vector<float> found(n);
    for (float & one : found) {
        one = normal(draw);
    }
    return found;
}

template <typename Block> static bool check(ggml_type type, int n) {
    using W = repack::by_rows<Block>;
    using A = typename W::activations;
    const size_t row_size = ggml_row_size(type, n), a_size = n / W::K * sizeof(A);

    std::vector<float> weights = drawn((size_t) n * COLUMNS), activations = drawn((size_t) n * ROWS), got((size_t) COLUMNS * ROWS);
    std::vector<char> plain(row_size * COLUMNS), repacked(plain.size()), own(a_size * ROWS);
    ggml_quantize_chunk(type, weights.data(), plain.data(), 0, COLUMNS, n, nullptr);
    ggml_get_type_traits(type)->to_float(plain.data(), weights.data(), (int64_t) n * COLUMNS);

    ggml_context * context = ggml_init({ ggml_tensor_overhead() * 2, nullptr, true });
    ggml_tensor * tensor = ggml_new_tensor_2d(context, type, n, COLUMNS);
    tensor->data = repacked.data();
    repack::repack<Block, 8, 8>(tensor, plain.data(), plain.size());
    ggml_free(context);
    rows::quantize(activations.data(), (A *) own.data(), (int64_t) n * ROWS);

    bool good = true;
    for (size_t i = 0; i < activations.size(); i++) {
        const float wanted = activations[i];
        if (!(std::fabs(at((const A *) own.data(), i) - wanted) <= 0.02 * 5)) {  // half a step of 127, of at most some 5
            printf("%s: %g is quantised as %g\n", ggml_type_name(type), wanted, at((const A *) own.data(), i));
            good = false;
            break;
        }
    }
    for (const int nr : { 1, 2, 3, 4, 5, 32, ROWS }) {
        std::fill(got.begin(), got.end(), NAN);
        rows::multiply<W>(n, got.data(), COLUMNS, repacked.data(), own.data(), a_size, nr, COLUMNS);
        double worst = 0, largest = 0;
        for (int m = 0; m < nr; m++) {
            for (int c = 0; c < COLUMNS; c += 13) {
                double wanted = 0;
                for (int k = 0; k < n; k++) {
                    wanted += at((const A *) (own.data() + a_size * m), k) * weights[(size_t) c * n + k];
                }
                const double off = std::fabs(wanted - got[(size_t) m * COLUMNS + c]);
                worst   = off <= worst ? worst : off;  // NAN stays
                largest = std::max(largest, std::fabs(wanted));
            }
        }
        if (!(worst <= CLOSE * largest)) {
            printf("%s, %d rows of %d: off by %g, results up to %g\n", ggml_type_name(type), nr, n, worst, largest);
            good = false;
        }
    }

    const ggml_type_traits_cpu * theirs = ggml_get_type_traits_cpu(type);
    const size_t b_size = ggml_row_size(theirs->vec_dot_type, n);
    std::vector<char> b(b_size * ROWS);
    ggml_get_type_traits_cpu(theirs->vec_dot_type)->from_float(activations.data(), b.data(), (int64_t) n * ROWS);
    printf("%s:", ggml_type_name(type));
    for (const int nr : { 1, 2, 4, 16 }) {
        const double ours = fastest([&] {
            rows::multiply<W>(n, got.data(), COLUMNS, repacked.data(), own.data(), a_size, nr, COLUMNS);
        });
        const double stock = fastest([&] {
            if (type == GGML_TYPE_Q4_K) {
                if (nr >= 4) {
                    ggml_gemm_q4_K_8x8_q8_K(n, got.data(), COLUMNS, repacked.data(), b.data(), nr, COLUMNS);
                }
                for (int m = nr & ~3; m < nr; m++) {
                    ggml_gemv_q4_K_8x8_q8_K(n, got.data(), COLUMNS, repacked.data(), b.data() + b_size * m, 1, COLUMNS);
                }
                return;
            }
            for (int c = 0; c < COLUMNS; c++) {
                for (int m = 0; m < nr; m++) {
                    theirs->vec_dot(n, got.data(), 0, plain.data() + row_size * c, 0, b.data() + b_size * m, 0, 1);
                }
            }
        });
        printf("%s %d rows %.1f times as fast", nr > 1 ? "," : "", nr, stock / ours);
    }
    printf("\n");
    return good;
}

int main() {
    ggml_cpu_init();
    bool good = true;
    for (const int n : { 256, 1536 }) {
        good = check<block_q4_K>(GGML_TYPE_Q4_K, n) && good;
        good = check<block_q6_K>(GGML_TYPE_Q6_K, n) && good;
    }
#if defined(GGML_ROWS_32)
    for (const int n : { 128, 896 }) {
        good = check<block_q5_0>(GGML_TYPE_Q5_0, n) && good;
        good = check<block_q8_0>(GGML_TYPE_Q8_0, n) && good;
    }
#endif
    return good ? 0 : 1;
}

#else

int main() {
    return 0;
}

#endif

// The experts of a mixture on a CPU: sort the pairs of token and expert, gather, three products,
// scatter; forward and backward, in one parallel region that reads each picked expert's weights
// once and no other's.
//
// Compiled on demand by native.py for the machine it runs on, and called through plain C functions;
// it knows nothing of torch. Every sum is added in one order whatever the number of threads, so
// results are the same to the bit.
//
// Axes: N tokens, K picks, E experts, D hidden, H width of an expert. A pair is one token with one
// of its picks, number n * K + k; pairs sorted by expert are called sorted. Weights: gate_up [E,
// 2H, D], down [E, D, H]. Left out: which experts are picked, and any activation but SiLU
// (experts.py has them in PyTorch).

#include <cmath>

#include "gemm.h"

namespace {

struct Sizes {
    Index tokens, picks, experts, hidden, width;
    Index pairs() const { return tokens * picks; }
};

// Sorted pairs of each expert, and the work of each thread: at most ROW_BLOCK pairs of one expert.
struct Plan {
    std::vector<Index> pair, start;
    struct Block {
        Index expert, first, count;
    };
    std::vector<Block> blocks;

    bool sort(const Sizes& sizes, const Index* picked) {
        start.assign(sizes.experts + 1, 0);
        pair.resize(sizes.pairs());
        for (Index i = 0; i < sizes.pairs(); ++i) {
            if (picked[i] < 0 || picked[i] >= sizes.experts) return false;
            ++start[picked[i] + 1];
        }
        for (Index e = 0; e < sizes.experts; ++e) {
            for (Index i = 0; i < start[e + 1]; i += ROW_BLOCK) {
                blocks.push_back({e, start[e] + i, std::min(ROW_BLOCK, start[e + 1] - i)});
            }
            start[e + 1] += start[e];
        }
        std::vector<Index> next(start.begin(), start.end() - 1);
        for (Index i = 0; i < sizes.pairs(); ++i) pair[next[picked[i]]++] = i;
        return true;
    }
};

// Memory of a thread, kept from call to call: fresh pages would cost more than the work of a small
// call.
class Scratch {
  public:
    float* get(int slot, Index count) {
        std::vector<float>& buffer = buffers[slot];
        if (static_cast<Index>(buffer.size()) < count) buffer.resize(count);
        return buffer.data();
    }

  private:
    std::vector<float> buffers[8];
};

thread_local Scratch scratch;

// Whether the processor multiplies pairs of bf16, and rows are whole fours of pairs.
#if defined(__AVX512BF16__)
template <class T>
constexpr bool HAS_PAIRS = std::is_same_v<T, Bf16>;
#else
template <class T>
constexpr bool HAS_PAIRS = false;
#endif

template <class T>
bool pairs_fit(const Sizes& sizes) {
    return HAS_PAIRS<T> && sizes.hidden % 8 == 0 && sizes.width % 8 == 0;
}

Index packed_size(Index rows, Index depth) { return (rows / TILE_ROWS + 2) * TILE_STEP * depth; }

template <class T>
struct Forward {
    Sizes sizes;
    const T *x, *gate_up, *down;
    const float* weights;  // null: pairs are not weighted and not added
    float* kept;           // gate and up of each sorted pair, for the backward pass; null: not kept
    T* out;                // [N, D] with weights, else [N, K, D]
    float* pair_out;       // memory for [N, K, D] with weights or bf16

    template <bool PAIRS>
    void compute_block(const Plan& plan, const Plan::Block& block) const {
        // Pairs of bf16 travel as words, half as many.
        constexpr Index ratio = PAIRS ? 2 : 1;
        using Word = std::conditional_t<PAIRS, float, T>;
        const Index rows = block.count, D = sizes.hidden, H = sizes.width;
        const Word* sources[ROW_BLOCK] = {};
        float* targets[ROW_BLOCK];
        float* packed = scratch.get(0, packed_size(rows, std::max(D, H)));
        float* hidden = kept ? kept + block.first * 2 * H : scratch.get(1, rows * 2 * H);
        for (Index i = 0; i < rows; ++i) {
            sources[i] =
                reinterpret_cast<const Word*>(x + plan.pair[block.first + i] / sizes.picks * D);
            targets[i] = hidden + i * 2 * H;
        }
        const Word* up = reinterpret_cast<const Word*>(gate_up + block.expert * 2 * H * D);
        multiply_rows<PAIRS>(sources, rows, D / ratio, 2 * H, up, targets, packed);
        T* active = reinterpret_cast<T*>(scratch.get(2, rows * H));
        for (Index i = 0; i < rows; ++i) {
            const float* row = hidden + i * 2 * H;
            for_vectors(H, [&](Index j, Index count) {
                const Vec gate = load_part(row + j, count);
                store_part(active + i * H + j, gate * sigmoid(gate) * load_part(row + H + j, count),
                           count);
            });
            sources[i] = reinterpret_cast<const Word*>(active + i * H);
            targets[i] = pair_rows() + plan.pair[block.first + i] * D;
        }
        const Word* to = reinterpret_cast<const Word*>(down + block.expert * D * H);
        multiply_rows<PAIRS>(sources, rows, H / ratio, D, to, targets, packed);
    }

    float* pair_rows() const {
        if constexpr (std::is_same_v<T, float>) {
            if (!weights) return out;
        }
        return pair_out;
    }

    void compute(const Plan& plan, const Plan::Block& block) const {
        if (pairs_fit<T>(sizes)) {
            compute_block<HAS_PAIRS<T>>(plan, block);
        } else {
            compute_block<false>(plan, block);
        }
    }

    void finish(Index token) const {
        const Index D = sizes.hidden, K = sizes.picks;
        const float* from = pair_out + token * K * D;
        if (!weights) return narrow_row(from, out + token * K * D, K * D);
        for_vectors(D, [&](Index j, Index count) {
            Vec sum = {};
            for (Index k = 0; k < K; ++k)
                sum += weights[token * K + k] * load_part(from + k * D + j, count);
            store_part(out + token * D + j, sum, count);
        });
    }

    int run(const Index* picked, int num_threads) const {
        Plan plan;
        if (!plan.sort(sizes, picked)) return 1;
        const bool finishes = weights || !std::is_same_v<T, float>;
        const Index blocks = plan.blocks.size();
#pragma omp parallel num_threads(num_threads) if (num_threads > 1)
        {
#pragma omp for schedule(dynamic)
            for (Index i = 0; i < blocks; ++i) compute(plan, plan.blocks[i]);
            if (finishes) {
#pragma omp for
                for (Index token = 0; token < sizes.tokens; ++token) finish(token);
            }
        }
        return 0;
    }
};

template <class T>
struct Backward {
    Sizes sizes;
    const T *x, *gate_up, *down, *grad_out;
    const float *weights, *kept;
    T *grad_x, *grad_gate_up, *grad_down;
    float* grad_weights;  // null without weights
    float* pair_grad;     // memory for [N, K, D]

    // Gradient of one expert's weights, in float32 until all its rows are added.
    float* gradient_rows(int slot, T* gradient, Index rows, Index columns, float** targets) const {
        float* base;
        if constexpr (std::is_same_v<T, float>) {
            base = gradient;
        } else {
            base = scratch.get(slot, rows * columns);
        }
        for (Index i = 0; i < rows; ++i) targets[i] = base + i * columns;
        return base;
    }

    void compute_expert(const Plan& plan, Index expert) const {
        const Index D = sizes.hidden, H = sizes.width;
        T* to_gate_up = grad_gate_up + expert * 2 * H * D;
        T* to_down = grad_down + expert * D * H;
        const Index first = plan.start[expert], last = plan.start[expert + 1];
        if (first == last) {
            std::memset(static_cast<void*>(to_gate_up), 0, sizeof(T) * 2 * H * D);
            std::memset(static_cast<void*>(to_down), 0, sizeof(T) * D * H);
            return;
        }
        std::vector<float*> gate_up_rows(2 * H), down_rows(D);
        float* wide_gate_up = gradient_rows(6, to_gate_up, 2 * H, D, gate_up_rows.data());
        float* wide_down = gradient_rows(7, to_down, D, H, down_rows.data());
        for (Index row = first; row < last; row += ROW_BLOCK) {
            const Plan::Block block = {expert, row, std::min(ROW_BLOCK, last - row)};
            if (pairs_fit<T>(sizes)) {
                compute_block<HAS_PAIRS<T>>(plan, block, gate_up_rows.data(), down_rows.data(),
                                            row > first);
            } else {
                compute_block<false>(plan, block, gate_up_rows.data(), down_rows.data(),
                                     row > first);
            }
        }
        if constexpr (!std::is_same_v<T, float>) {
            narrow_row(wide_gate_up, to_gate_up, 2 * H * D);
            narrow_row(wide_down, to_down, D * H);
        }
    }

    template <bool PAIRS>
    void compute_block(const Plan& plan, const Plan::Block& block, float* const* gate_up_rows,
                       float* const* down_rows, bool add) const {
        constexpr Index ratio = PAIRS ? 2 : 1;
        using Word = std::conditional_t<PAIRS, float, T>;
        using Inner = std::conditional_t<PAIRS, Bf16, float>;  // of what lies between the products
        const Index rows = block.count, D = sizes.hidden, H = sizes.width;
        const T* sources[ROW_BLOCK] = {};
        const Word* words[ROW_BLOCK] = {};
        const Inner *active_rows[ROW_BLOCK] = {}, *slope_rows[ROW_BLOCK] = {};
        float* targets[ROW_BLOCK];
        float* packed = scratch.get(0, packed_size(rows, std::max(D, 2 * H)));
        Inner* slopes =
            reinterpret_cast<Inner*>(scratch.get(1, rows * 2 * H));  // d loss / d gate and up
        Inner* active =
            reinterpret_cast<Inner*>(scratch.get(2, rows * H));  // times the pair's weight
        float* inner = scratch.get(3, rows * H);                 // grad_out times down
        float* left = scratch.get(4, rows * std::max(D, 2 * H));
        float* right = scratch.get(5, rows * std::max(D, H));
        for (Index i = 0; i < rows; ++i) {
            const Index pair = plan.pair[block.first + i];
            sources[i] = grad_out + (weights ? pair / sizes.picks : pair) * D;
            words[i] = reinterpret_cast<const Word*>(sources[i]);
            targets[i] = inner + i * H;
            active_rows[i] = active + i * H;
            slope_rows[i] = slopes + i * 2 * H;
        }
        multiply<PAIRS>(pack(words, rows, D / ratio, packed), rows, D / ratio, H,
                        along_rows<PAIRS>(down + block.expert * D * H, H), targets, false);
        for (Index i = 0; i < rows; ++i) {
            differentiate_row(plan.pair[block.first + i], block.first + i, inner + i * H,
                              active + i * H, slopes + i * 2 * H);
        }
        Index depth = gather<PAIRS>(sources, rows, D, left);
        gather<PAIRS>(active_rows, rows, H, right);
        multiply<PAIRS>(Left{left, tile_rows(D), D}, D, depth, H, along_rows<false>(right, H),
                        down_rows, add);

        const float* slope_words[ROW_BLOCK] = {};
        for (Index i = 0; i < rows; ++i) {
            const Index pair = plan.pair[block.first + i];
            sources[i] = x + pair / sizes.picks * D;
            slope_words[i] = reinterpret_cast<const float*>(slope_rows[i]);
            targets[i] = pair_grad + pair * D;
        }
        gather<PAIRS>(slope_rows, rows, 2 * H, left);
        gather<PAIRS>(sources, rows, D, right);
        multiply<PAIRS>(Left{left, tile_rows(2 * H), 2 * H}, 2 * H, depth, D,
                        along_rows<false>(right, D), gate_up_rows, add);
        multiply<PAIRS>(pack(slope_words, rows, 2 * H / ratio, packed), rows, 2 * H / ratio, D,
                        along_rows<PAIRS>(gate_up + block.expert * 2 * H * D, D), targets, false);
    }

    // The gate weight's gradient needs no output: <grad_out, down a> = <grad_out down, a>.
    template <class Inner>
    void differentiate_row(Index pair, Index sorted, const float* inner, Inner* active,
                           Inner* slopes) const {
        const Index H = sizes.width;
        const float weight = weights ? weights[pair] : 1.0f;
        const float* row = kept + sorted * 2 * H;
        Vec sum = {};
        for_vectors(H, [&](Index j, Index count) {
            const Vec gate = load_part(row + j, count), up = load_part(row + H + j, count);
            const Vec share = sigmoid(gate), silu = gate * share,
                      outer = load_part(inner + j, count);
            sum += outer * silu * up;
            store_part(active + j, weight * silu * up, count);
            store_part(slopes + j, weight * outer * up * share * (1.0f + gate * (1.0f - share)),
                       count);
            store_part(slopes + H + j, weight * outer * silu, count);
        });
        if (grad_weights) {
            float total = 0.0f;
            for (int lane = 0; lane < LANES; ++lane) total += sum[lane];
            grad_weights[pair] = total;
        }
    }

    void finish(Index token) const {
        const Index D = sizes.hidden, K = sizes.picks;
        const float* from = pair_grad + token * K * D;
        for (Index j = 0; j < D; ++j) {
            float sum = 0.0f;
            for (Index k = 0; k < K; ++k) sum += from[k * D + j];
            narrow(sum, grad_x + token * D + j);
        }
    }

    int run(const Index* picked, int num_threads) const {
        Plan plan;
        if (!plan.sort(sizes, picked)) return 1;
#pragma omp parallel num_threads(num_threads) if (num_threads > 1)
        {
#pragma omp for schedule(dynamic)
            for (Index expert = 0; expert < sizes.experts; ++expert) compute_expert(plan, expert);
#pragma omp for
            for (Index token = 0; token < sizes.tokens; ++token) finish(token);
        }
        return 0;
    }
};

}  // namespace

#define LIMBECK_EXPORT(suffix, T)                                                                \
    extern "C" int limbeck_forward_##suffix(                                                     \
        Index tokens, Index picks, Index experts, Index hidden, Index width, int num_threads,    \
        const T* x, const Index* picked, const float* weights, const T* gate_up, const T* down,  \
        float* kept, T* out, float* pair_out) {                                                  \
        const Sizes sizes = {tokens, picks, experts, hidden, width};                             \
        return Forward<T>{sizes, x, gate_up, down, weights, kept, out, pair_out}.run(            \
            picked, num_threads);                                                                \
    }                                                                                            \
    extern "C" int limbeck_backward_##suffix(                                                    \
        Index tokens, Index picks, Index experts, Index hidden, Index width, int num_threads,    \
        const T* x, const Index* picked, const float* weights, const T* gate_up, const T* down,  \
        const float* kept, const T* grad_out, T* grad_x, float* grad_weights, T* grad_gate_up,   \
        T* grad_down, float* pair_grad) {                                                        \
        const Sizes sizes = {tokens, picks, experts, hidden, width};                             \
        return Backward<T>{sizes, x, gate_up, down, grad_out, weights, kept, grad_x, grad_gate_up,\
                           grad_down, grad_weights, pair_grad}.run(picked, num_threads);         \
    }

LIMBECK_EXPORT(float32, float)
LIMBECK_EXPORT(bfloat16, Bf16)

// Zero where this machine computes what a plain loop computes. Called once, in a process of its
// own, after compiling.
extern "C" int limbeck_check() {
    const Index N = 30, K = 2, E = 3, D = 40, H = 24;
    std::vector<float> x(N * D), gate_up(E * 2 * H * D), down(E * D * H), out(N * K * D);
    std::vector<Index> picked(N * K);
    uint32_t state = 1;
    auto fill = [&](std::vector<float>& numbers) {
        for (float& number : numbers)
            number = static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) / 4e7f;
    };
    fill(x), fill(gate_up), fill(down);
    for (Index i = 0; i < N * K; ++i) picked[i] = i * i % E;
    limbeck_forward_float32(N, K, E, D, H, 2, x.data(), picked.data(), nullptr, gate_up.data(),
                            down.data(), nullptr, out.data(), nullptr);
    double worst = 0.0;
    for (Index i = 0; i < N * K; ++i) {
        double active[H];
        for (Index h = 0; h < H; ++h) {
            double gate = 0.0, up = 0.0;
            for (Index d = 0; d < D; ++d) {
                gate += double(x[i / K * D + d]) * gate_up[(picked[i] * 2 * H + h) * D + d];
                up += double(x[i / K * D + d]) * gate_up[(picked[i] * 2 * H + H + h) * D + d];
            }
            active[h] = gate / (1.0 + std::exp(-gate)) * up;
        }
        for (Index d = 0; d < D; ++d) {
            double sum = 0.0;
            for (Index h = 0; h < H; ++h) sum += active[h] * down[(picked[i] * D + d) * H + h];
            worst = std::max(worst, std::abs(sum - out[i * D + d]) / (1e-3 + std::abs(sum)));
        }
    }
    // bf16 has instructions of its own; that they run is enough.
    std::vector<Bf16> half(std::max(N * K * D, E * 2 * H * D)), half_out(N * K * D);
    limbeck_forward_bfloat16(N, K, E, D, H, 2, half.data(), picked.data(), nullptr, half.data(),
                             half.data(), nullptr, half_out.data(), out.data());
    return worst < 1e-4 && half_out[0].bits == 0 ? 0 : 1;
}

// For ThreadSanitizer: threads that do all that a run does, at the same time. Three workers read, step their envs, push, apply and log,
// while an observer reads, copies whole records, adds up the ledger and takes the logs. The sums are checked, too.
#include "fastac/cartpole.hpp"
#include "gates.hpp"

using namespace fastac;
using enum UpdateScheme;

namespace {

constexpr std::uint32_t workers = 3, floats = 16;
constexpr std::size_t envs = 4;

/// A CartPole whose envs are seeded and reset.
CartPole cartpole(std::uint64_t seed) {
    CartPole env(envs, 500, AutoresetMode::same_step, false);
    for (std::size_t i = 0; i < envs; ++i) env.seed(i, {seed, i, 0, 1});
    env.reset();
    return env;
}

void work(const SharedRegion& region, const gates::GradientTable& table, std::size_t w, std::uint64_t pushes) {
    Session session(region, w);
    CartPole env = cartpole(w);
    std::vector<float> params(floats);
    std::vector<std::int64_t> actions(envs);
    std::vector<double> row(log_columns);
    for (std::uint64_t s = 1; s <= pushes; ++s) {
        const std::uint64_t version = session.read(params).version;
        for (std::size_t i = 0; i < envs; ++i) actions[i] = env.obs()[4 * i + 2] > 0.0F ? 1 : 0;  // towards where the pole falls
        env.step(actions);
        CHECK(session.submit(table.gradient(w, s), harness::tag(version)) == Submitted::applied);
        row.assign(log_columns, static_cast<double>(s));
        session.log(row.data());
    }
}

/// Takes all rows of all logs; each holds one number, and they ascend. Where the log was full a row is missing.
void take_logs(Session& session, std::vector<double>& last) {
    std::vector<double> rows;
    for (std::size_t w = 0; w < workers; ++w) {
        const std::size_t n = session.unread_log(w);
        rows.resize(n * log_columns);
        session.read_log(w, n, rows.data());
        for (std::size_t i = 0; i < rows.size(); i += log_columns) {
            CHECK(rows[i] > last[w]);
            CHECK_EQ(rows[i], rows[i + log_columns - 1]);
            last[w] = rows[i];
        }
    }
}

void observe(const SharedRegion& region, const std::atomic<std::uint32_t>& at_work) {
    Session session(region, workers);
    std::vector<float> params(floats), state;
    std::vector<double> last(workers);
    std::uint64_t version = 0, read = 0;
    while (at_work.load() > 0) {
        const std::uint64_t now_read = session.read(params).version;
        CHECK(now_read >= read && now_read >= version);
        read = now_read;
        for (const std::uint64_t now : {session.snapshot().version, session.copy_record(params, state).version, session.ledger().at.version}) {
            CHECK(now >= version);
            CHECK(now >= read || region.config().scheme == hogwild);  // what it reads may hold steps that are not published yet
            version = now;
        }
        take_logs(session, last);
        for (std::size_t w = 0; w < workers; ++w) static_cast<void>(session.heartbeat(w));
        if (region.config().scheme == lockfree) session.drain();  // one more who applies
    }
    take_logs(session, last);
}

std::uint64_t race(UpdateScheme scheme, std::uint64_t pushes, std::uint64_t seed) {
    const gates::GradientTable table(floats, gates::GradientTable::offsets / 2, seed);
    const SharedRegion region = harness::region(gates::config(workers, floats, scheme));
    std::atomic<std::uint32_t> at_work{workers};
    {
        const harness::Learner learner(region);
        harness::together(workers + 1, [&](std::size_t seat) {
            if (seat == workers) return observe(region, at_work);
            work(region, table, seat, pushes / workers);
            --at_work;
        });
    }
    Session observer(region, workers);
    if (scheme != hogwild) return gates::audit(region, observer, table).pushes;
    harness::check_ledger(observer.ledger());  // hogwild may lose additions, and counts them
    return observer.ledger().published;
}

std::string races(const gates::Arguments& arguments) {
    const std::uint64_t pushes = arguments.number("pushes", 1000, UINT64_MAX / 2), seed = arguments.number("seed", 0, UINT64_MAX);
    const std::map<std::string, std::pair<UpdateScheme, std::uint64_t>> shares{  // in hundredths
        {"lockfree", {lockfree, 45}}, {"lock", {lock, 25}}, {"queue", {queue, 5}}, {"hogwild", {hogwild, 25}}};
    std::uint64_t sum = 0;
    std::string each;
    for (const auto& [name, share] : shares) {
        const std::uint64_t n = race(share.first, pushes * share.second / 100, seed);
        each += (each.empty() ? "" : ", ") + name + " " + gates::thousands(n);
        sum += n;
    }
    return "races: " + gates::thousands(sum) + " pushes of " + gates::thousands(floats) + " floats (" + each + ") by " + gates::thousands(workers) +
           " threads that step 4 envs each, beside an observer";
}

}  // namespace

int main(int argc, char** argv) { return gates::run(argc, argv, {{"pushes", "1000000"}, {"seed", "1"}}, races); }

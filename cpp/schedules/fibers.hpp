// Several stacks in one thread. Made by ucontext, switched by setjmp and longjmp: swapcontext would make a system call
// each time.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <utility>

namespace schedules {

/// A stack of its own and where to go on there. One that is not resumed any more may be begun anew: whatever lay on its
/// stack is gone without a destructor, as in a process that is killed.
class Fiber {
public:
    /// The next switch to this fiber runs `body`, which must not return.
    void begin(std::function<void()> body) {
        if (!stack_) stack_ = std::make_unique<std::byte[]>(stack_bytes);
        body_ = std::move(body);
        getcontext(&start_);
        start_.uc_stack.ss_sp = stack_.get();
        start_.uc_stack.ss_size = stack_bytes;
        start_.uc_link = nullptr;
        makecontext(&start_, enter, 0);
        fresh_ = true;
    }

    /// Leaves `from`, which is the one that runs, and goes on in `to`.
    [[gnu::noinline]] static void switch_to(Fiber& from, Fiber& to) noexcept {
        if (_setjmp(from.here_) != 0) return;
        if (std::exchange(to.fresh_, false)) {
            entering = &to;
            setcontext(&to.start_);
        }
        _longjmp(to.here_, 1);
    }

private:
    static constexpr std::size_t stack_bytes = 128 * 1024;
    static void enter() { entering->body_(); }

    inline static Fiber* entering = nullptr;
    std::unique_ptr<std::byte[]> stack_;
    std::function<void()> body_;
    ucontext_t start_{};
    jmp_buf here_{};
    bool fresh_ = false;
};

}  // namespace schedules

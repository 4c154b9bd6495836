"""The native CartPole under a policy that draws every action by chance.

python examples/random_policy.py --num-envs 64 --env-steps 1000000
"""

import argparse
import time

import gymnasium
from gymnasium.wrappers.vector import RecordEpisodeStatistics


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--env-id", default="fastac:fastac/CartPole-v1")  # module:id, so that nothing else is imported
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--env-steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    envs = RecordEpisodeStatistics(gymnasium.make_vec(args.env_id, num_envs=args.num_envs))
    envs.reset(seed=args.seed)
    envs.action_space.seed(args.seed)
    episodes, total_return = 0, 0.0
    began = time.perf_counter()
    for _ in range(args.env_steps // args.num_envs):
        *_, infos = envs.step(envs.action_space.sample())
        if "episode" in infos:
            episodes += int(infos["_episode"].sum())
            total_return += float(infos["episode"]["r"].sum())
    seconds = time.perf_counter() - began
    print(f"{episodes} episodes, mean return {total_return / max(episodes, 1):.2f}")
    print(f"{args.env_steps / seconds:,.0f} env steps per second, drawing the actions included")


if __name__ == "__main__":
    main()

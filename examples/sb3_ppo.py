"""PPO of Stable-Baselines3 on the native CartPole. Needs `pip install 'fastac[sb3]'`.

python examples/sb3_ppo.py --total-timesteps 50000
"""

import argparse

from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor

from fastac.interop.sb3 import as_vec_env


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--n-envs", type=int, default=8)
    parser.add_argument("--total-timesteps", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    envs = VecMonitor(as_vec_env("fastac/CartPole-v1", n_envs=args.n_envs))
    eval_envs = VecMonitor(as_vec_env("fastac/CartPole-v1", n_envs=args.n_envs, seed=args.seed + 1000))
    # What RL Baselines3 Zoo tuned for CartPole-v1, with a constant learning rate.
    tuned = {"n_steps": 32, "batch_size": 256, "n_epochs": 20, "learning_rate": 1e-3, "gamma": 0.98, "gae_lambda": 0.8}
    model = PPO("MlpPolicy", envs, **tuned, seed=args.seed, device="cpu")
    print("before training:", evaluated(model, eval_envs))
    model.learn(args.total_timesteps)
    print("after training:", evaluated(model, eval_envs))


def evaluated(model: PPO, envs: VecMonitor) -> str:
    mean, std = evaluate_policy(model, envs, n_eval_episodes=20, deterministic=False)
    return f"mean return {mean:.1f}, standard deviation {std:.1f}, of 20 episodes"


if __name__ == "__main__":
    main()

"""REINFORCE on CartPole: the environment seeds itself, actions are sampled."""

import gymnasium as gym
import torch
from torch import nn
from torch.distributions import Categorical

env = gym.make("CartPole-v1")
policy = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2))
optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
for episode in range(6):
    state, _ = env.reset()
    log_probabilities, rewards = [], []
    is_over = False
    while not is_over:
        choice = Categorical(logits=policy(torch.as_tensor(state)))
        action = choice.sample()
        state, reward, has_ended, was_cut, _ = env.step(action.item())
        log_probabilities.append(choice.log_prob(action))
        rewards.append(reward)
        is_over = has_ended or was_cut
    returns = torch.tensor(rewards).flip(0).cumsum(0).flip(0)
    returns = (returns - returns.mean()) / (returns.std() + 1e-6)
    loss = -(torch.stack(log_probabilities) * returns).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(episode, len(rewards), env.action_space.sample())

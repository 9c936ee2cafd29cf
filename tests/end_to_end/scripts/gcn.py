"""A graph convolution over a random graph: sparse adjacency, full-batch training."""

import networkx
import torch
from torch import nn

graph = networkx.barabasi_albert_graph(60, 3)
edges = torch.tensor(list(graph.edges)).T
edges = torch.cat([edges, edges.flip(0), torch.arange(60).repeat(2, 1)], 1)
degree = torch.zeros(60).index_add_(0, edges[0], torch.ones(edges.shape[1]))
weights = (degree[edges[0]] * degree[edges[1]]).rsqrt()
adjacency = torch.sparse_coo_tensor(edges, weights, (60, 60)).coalesce()


class GCN(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.second = nn.Linear(16, 3)

    def forward(self, x):
        x = torch.relu(torch.sparse.mm(adjacency, self.first(x)))
        x = nn.functional.dropout(x, 0.5, self.training)
        return torch.sparse.mm(adjacency, self.second(x))


features, labels = torch.randn(60, 8), torch.randint(0, 3, (60,))
is_train = torch.rand(60) < 0.6
model = GCN()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
for epoch in range(12):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(features)[is_train], labels[is_train])
    loss.backward()
    optimizer.step()

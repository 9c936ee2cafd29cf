"""scikit-learn prepares and splits the data and makes features; PyTorch trains on them."""

import torch
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn

x, y = make_classification(200, 10, n_informative=5)
train_x, test_x, train_y, test_y = train_test_split(x, y, stratify=y)
forest = RandomForestClassifier(10, max_depth=3, n_jobs=2).fit(train_x, train_y)
scaler = StandardScaler().fit(train_x)
pca = PCA(4, svd_solver="randomized").fit(scaler.transform(train_x))
features = torch.cat(
    [
        torch.tensor(pca.transform(scaler.transform(train_x)), dtype=torch.float32),
        torch.tensor(forest.predict_proba(train_x), dtype=torch.float32),
    ],
    1,
)
targets = torch.tensor(train_y)
model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for _ in range(3):
    for chosen in torch.randperm(len(features)).split(25):
        loss = nn.functional.cross_entropy(model(features[chosen]), targets[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

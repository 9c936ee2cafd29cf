"""A CNN with batch normalisation and dropout on random pictures; OneCycle schedule, evaluation between epochs."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

torch.set_num_threads(2)


class Block(nn.Module):
    def __init__(self, channels_in, channels_out):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, x):
        return nn.functional.max_pool2d(torch.relu(self.norm(self.conv(x))), 2)


data = TensorDataset(torch.randn(96, 3, 16, 16), torch.randint(0, 4, (96,)))
train_set, test_set = random_split(data, [64, 32])
loader = DataLoader(train_set, batch_size=16, shuffle=True, drop_last=True)
model = nn.Sequential(Block(3, 8), Block(8, 16), nn.Flatten(), nn.Dropout(0.3), nn.Linear(256, 4))
model = model.to(memory_format=torch.channels_last)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=8)
criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
for epoch in range(2):
    model.train()
    for images, labels in loader:
        optimizer.zero_grad(set_to_none=True)
        loss = criterion(model(images.to(memory_format=torch.channels_last)), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
    model.eval()
    with torch.no_grad():
        hits = sum((model(x).argmax(1) == y).sum().item() for x, y in DataLoader(test_set, batch_size=16))
    print(f"epoch {epoch}: {hits}/{len(test_set)}")
torch.save(model.state_dict(), "cnn.pt")

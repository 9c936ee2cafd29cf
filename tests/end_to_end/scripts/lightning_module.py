"""A LightningModule with a scheduler and validation, trained by the Trainer; checkpoints and logs to CSV."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Regression(pl.LightningModule):
    def __init__(self, rate=0.02):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 1))

    def training_step(self, batch, index):
        loss = nn.functional.mse_loss(self.net(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, index):
        self.log("val", nn.functional.mse_loss(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams.rate)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


def data(count):
    return TensorDataset(torch.randn(count, 4), torch.randn(count, 1))


if __name__ == "__main__":
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=CSVLogger("logs"), enable_progress_bar=False, log_every_n_steps=1
    )
    trainer.fit(Regression(), DataLoader(data(32), 8, shuffle=True), DataLoader(data(16), 8))

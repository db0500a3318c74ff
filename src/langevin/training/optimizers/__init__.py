"""One file an optimizer, each a torch.optim.Optimizer whose arguments are its settings; of others, `package.module:Class`."""

"""From text to a checkpoint: corpus -> store -> sampling -> collator -> start -> pretrain."""

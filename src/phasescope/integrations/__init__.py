"""Recording inside other trainers, and forwarding summaries to trackers.

Every module needs the extra of its library and is imported by its own name:
`phasescope.integrations.huggingface`, `.lightning`, `.mazes`, `.tensorboard`, `.wandb`.
"""

"""Pure kernels of the gate: what is known of orders and their names, what an instrument allows."""

"""How requests travel to S3 and back: typed messages, the port for them, and the wires."""

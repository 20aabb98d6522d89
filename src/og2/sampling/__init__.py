"""Time, guidance and solvers as functions of velocity(x, t); never imports the model."""

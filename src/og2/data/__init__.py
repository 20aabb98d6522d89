"""Files and worlds into typed training batches."""

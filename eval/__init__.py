"""From a checkpoint to records and a report: encoder -> tasks -> metrics -> records -> stats -> plots -> report."""

"""The instrument: from parameters to the power that each sample of a beam map records."""

"""`sspo analyze`: statistics of the segments and entropies of responses, from files, without a run."""

"""`sspo analyze`: does the text have segments, and does its entropy cross the thresholds? From files, without a run."""

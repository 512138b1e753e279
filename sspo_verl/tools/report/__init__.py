"""`sspo report`: reads the metrics of runs, and puts their numbers and curves on one page."""

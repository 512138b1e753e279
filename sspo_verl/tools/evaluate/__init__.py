"""`sspo eval`: generates with vLLM, scores with the reward, and prints a table with one column per benchmark."""

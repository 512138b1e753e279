"""`sspo eval`: generate with vLLM, score with the reward, and print the table with one column per benchmark."""

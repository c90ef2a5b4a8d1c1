"""Does relearning tell a net that was made to forget a digit from nets that never knew it?"""

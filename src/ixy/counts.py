"""The words of a path, an array of int64: what its kernels have counted, and what they, the user's function and the
program tell each other."""

RECEIVED, FORWARDED, DROPPED = 0, 1, 2
HELD = 3  # by batches: packets at hand, for which there is nobody else
NOW = 4  # when the batch at hand came, as `functions.now` tells; 0 until that asks
BEGUN, LEFT = 5, 6  # packet by packet: how many the function was given, and how many of them it has dropped
STOP = 7
LOST = 8  # copies for which there was no buffer
TROUBLE = 9  # what the text of an exception lacks: two numbers, and whether there are any
TROUBLE_WORDS = 3
RANDOM = 12  # the state of `functions.random`, not 0
QUEUE = 13  # the number of the receive queue
COUNTS = 16  # from here on, what went to each of several outputs

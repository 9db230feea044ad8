"""The words of a path, an array of int64: what its kernels have counted, and what they, the user's function and the
program tell each other."""

RECEIVED, FORWARDED, DROPPED = 0, 1, 2
HELD = 3  # by batches: packets at hand, for which there is nobody else
NOW = 4  # when the batch at hand came, as `functions.now` tells; 0 until that asks
BEGUN, LEFT = 5, 6  # packet by packet: how many the function was given, and how many of them it has dropped
AT = 7  # by batches: which of the packets at hand the function has seen last
STOP = 8
PAUSE = 9  # a run is to end, and others may follow
POLLED, IDLE = 10, 11  # how often the path was polled, and how often in vain
LOST = 12  # copies for which there was no buffer, and packets for Python for which there was no room
QUEUE = 13  # the number of the receive queue
RANDOM = 14  # the state of `functions.random`, not 0
CULPRIT = 15  # the number of the packet with which the function raised an exception, counted from 1, or 0
CULPRIT_BYTES = 32  # of that packet
TROUBLE = 16  # what the text of that exception lacks: two numbers, and whether there are any
TROUBLE_WORDS = 3
BED = 19  # the file to write to, plus 1, where a simulated card sleeps that doorbells of the path are to rouse; else 0
HEARD = 20  # RECEIVED when the card fell asleep: if it has grown, doorbells were rung since
COUNTS = 24  # from here on, what went to each of several outputs

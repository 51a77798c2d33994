"""Other forms of softmax and its losses, applied only when the user names one."""

ASKED = "HFDK_PROCESSES"
"""How many processes were started; each holds what came up against it. (Here, so that who starts them need not import torch.)"""

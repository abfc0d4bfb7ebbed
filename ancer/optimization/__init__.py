"""theta for each image: the paper's optimizers and ours; all only propose, `certify` alone proves.

Every function maps a noise (its theta is the start) to theta, on draws that are never those of
certification.
"""

"""Fit several layers together: a solved layer and the one before it, or a whole chain of linear layers.

    pair_jobs.py, chain_jobs.py     what is fitted, on which rows, and how the result is written
    search.py                       the search itself: Adam on the rows to fit, judged on the rows held out
    errors.py                       the error of a chain and its gradients
    rows.py, gathering.py           the rows of a chain, and how they are gathered from batches
    arrays.py                       layers and samples as arrays
    effort.py, shares.py            how much work searches may do, and how it is divided among them

pairs.py in the folder above finds the pairs.
"""

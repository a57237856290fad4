"""embedlab's static model: distilled from the base model, then trained on the pairs, as in notebook 06.

python embedlab_static.py DATA MODEL OUTPUT
"""

"""gclip in other people's training loops: Lightning and Transformers.

Nothing is imported until it is asked for::

    from gclip.integrations.lightning import Clipping
    from gclip.integrations.transformers import ClippingCallback
"""

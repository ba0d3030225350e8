"""``caffe.Layer``: the base of layers written in Python.

>>> import caffe_compat.pycaffe as caffe  # doctest: +SKIP
>>> class Double(caffe.Layer):  # doctest: +SKIP
...     def reshape(self, bottom, top):
...         top[0].reshape(*bottom[0].shape)
...     def forward(self, bottom, top):
...         top[0].data[...] = 2 * bottom[0].data

A definition names such a class by ``python_param { module: "MODULE" layer: "Double" }``. The class
must have been defined or imported by the script before the net is made: a definition alone never
imports a module.

Source: ``python_layer.hpp``, ``_caffe.cpp`` of BVLC Caffe (the interface).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from caffe_compat.layers.python import PythonLayer, register_python


class Layer(PythonLayer):
    """Base of the user's layer classes; every class that is made from it may be named by
    definitions.

    A class of the script that runs (module ``__main__``) is known by the script's name as well.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        register_python(cls)
        script = getattr(sys.modules.get("__main__"), "__file__", None)
        if cls.__module__ == "__main__" and script:
            register_python(cls, module=Path(script).stem)

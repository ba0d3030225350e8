"""Opens a record file of either kind."""

from __future__ import annotations

import os

from caffe_compat.errors import DataError
from reproduce.records.hdf5 import HDF5Store, holds_hdf5
from reproduce.records.store import LMDBStore, Store


def open_store(path: str | os.PathLike[str], joints: int | None = None) -> Store:
    """The record file at a path: an LMDB folder or file, or an HDF5 file.

    Parameters
    ----------
    joints : per person; None: as many as there are.

    Raises
    ------
    DataError : no such records, or records with other joints.
    """
    name = os.fspath(path)
    if holds_hdf5(name):
        store = HDF5Store(name)
        if joints is not None and store.joints != joints:
            raise DataError(
                f"{name}: its records have {store.joints} joints per person, expected {joints} "
                "(--joints, or np_in_lmdb of the definition)"
            )
        return store
    return LMDBStore(name, joints)

"""``caffe.proto``: Caffe's messages, in :mod:`caffe_compat.pycaffe.proto.caffe_pb2`."""

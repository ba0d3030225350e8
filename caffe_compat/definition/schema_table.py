"""Caffe's message table: every enum and message of both schema dialects, as one text.

A row is ``NUMBER TYPE NAME [= DEFAULT] [@DIALECT]``. ``TYPE*`` is repeated, ``TYPE**`` repeated and
packed, ``TYPE!`` required. What other forks added stands in
:mod:`caffe_compat.definition.fork_table`. ``@upstream`` rows exist in BVLC Caffe only, ``@fork``
rows in the Caffe fork of Convolutional Pose Machines only, ``@text`` rows in neither: later forks
use them in prototxt files, their wire numbers are not known, so they are read from text and never
written to a binary file.

Source: the published ``caffe.proto`` files of BVLC Caffe and of the CPM release (field numbers are
facts).
"""

TABLE = """\
enum Phase
  0 TRAIN
  1 TEST
enum FillerParameter.VarianceNorm
  0 FAN_IN
  1 FAN_OUT
  2 AVERAGE
enum SolverParameter.SnapshotFormat
  0 HDF5
  1 BINARYPROTO
enum SolverParameter.SolverMode
  0 CPU
  1 GPU
enum SolverParameter.SolverType
  0 SGD
  1 NESTEROV
  2 ADAGRAD
  3 RMSPROP
  4 ADADELTA
  5 ADAM
enum ParamSpec.DimCheckMode
  0 STRICT
  1 PERMISSIVE
enum LossParameter.NormalizationMode
  0 FULL
  1 VALID
  2 BATCH_SIZE
  3 NONE
enum ConvolutionParameter.Engine
  0 DEFAULT
  1 CAFFE
  2 CUDNN
enum DataParameter.DB
  0 LEVELDB
  1 LMDB
enum EltwiseParameter.EltwiseOp
  0 PROD
  1 SUM
  2 MAX
enum HingeLossParameter.Norm
  1 L1
  2 L2
enum LRNParameter.NormRegion
  0 ACROSS_CHANNELS
  1 WITHIN_CHANNEL
enum LRNParameter.Engine
  0 DEFAULT
  1 CAFFE
  2 CUDNN
enum PoolingParameter.PoolMethod
  0 MAX
  1 AVE
  2 STOCHASTIC
enum PoolingParameter.Engine
  0 DEFAULT
  1 CAFFE
  2 CUDNN
enum PoolingParameter.RoundMode @upstream
  0 CEIL
  1 FLOOR
enum ReductionParameter.ReductionOp
  1 SUM
  2 ASUM
  3 SUMSQ
  4 MEAN
enum ReLUParameter.Engine
  0 DEFAULT
  1 CAFFE
  2 CUDNN
enum SigmoidParameter.Engine
  0 DEFAULT
  1 CAFFE
  2 CUDNN
enum SoftmaxParameter.Engine
  0 DEFAULT
  1 CAFFE
  2 CUDNN
enum TanHParameter.Engine
  0 DEFAULT
  1 CAFFE
  2 CUDNN
enum SPPParameter.PoolMethod
  0 MAX
  1 AVE
  2 STOCHASTIC
enum SPPParameter.Engine
  0 DEFAULT
  1 CAFFE
  2 CUDNN
enum V1LayerParameter.LayerType
  0 NONE
  35 ABSVAL
  1 ACCURACY
  30 ARGMAX
  2 BNLL
  3 CONCAT
  37 CONTRASTIVE_LOSS
  4 CONVOLUTION
  5 DATA
  39 DECONVOLUTION
  6 DROPOUT
  32 DUMMY_DATA
  7 EUCLIDEAN_LOSS
  25 ELTWISE
  38 EXP
  8 FLATTEN
  9 HDF5_DATA
  10 HDF5_OUTPUT
  28 HINGE_LOSS
  11 IM2COL
  12 IMAGE_DATA
  13 INFOGAIN_LOSS
  14 INNER_PRODUCT
  15 LRN
  29 MEMORY_DATA
  16 MULTINOMIAL_LOGISTIC_LOSS
  34 MVN
  17 POOLING
  26 POWER
  18 RELU
  19 SIGMOID
  27 SIGMOID_CROSS_ENTROPY_LOSS
  36 SILENCE
  20 SOFTMAX
  21 SOFTMAX_LOSS
  22 SPLIT
  33 SLICE
  23 TANH
  24 WINDOW_DATA
  31 THRESHOLD
  40 ROIPOOLING @fork
enum V1LayerParameter.DimCheckMode
  0 STRICT
  1 PERMISSIVE
enum V0LayerParameter.PoolMethod
  0 MAX
  1 AVE
  2 STOCHASTIC
enum CPMDataParameter.DB @fork
  0 LEVELDB
  1 LMDB
message BlobShape
  1 int64** dim
message BlobProto
  1 int32 num = 0
  2 int32 channels = 0
  3 int32 height = 0
  4 int32 width = 0
  5 float** data
  6 float** diff
  7 BlobShape shape
  8 double** double_data
  9 double** double_diff
message BlobProtoVector
  1 BlobProto* blobs
message Datum
  1 int32 channels
  2 int32 height
  3 int32 width
  4 bytes data
  5 int32 label
  6 float* float_data
  7 bool encoded = false
message FillerParameter
  1 string type = constant
  2 float value = 0
  3 float min = 0
  4 float max = 1
  5 float mean = 0
  6 float std = 1
  7 int32 sparse = -1
  8 FillerParameter.VarianceNorm variance_norm = FAN_IN
message NetParameter
  1 string name
  2 V1LayerParameter* layers
  3 string* input
  4 int32* input_dim
  5 bool force_backward = false
  6 NetState state
  7 bool debug_info = false
  8 BlobShape* input_shape
  100 LayerParameter* layer
message SolverParameter
  1 string train_net
  2 string* test_net
  3 int32* test_iter
  4 int32 test_interval = 0
  5 float base_lr
  6 int32 display
  7 int32 max_iter
  8 string lr_policy
  9 float gamma
  10 float power
  11 float momentum
  12 float weight_decay
  13 int32 stepsize
  14 int32 snapshot = 0
  15 string snapshot_prefix
  16 bool snapshot_diff = false
  17 SolverParameter.SolverMode solver_mode = GPU
  18 int32 device_id = 0
  19 bool test_compute_loss = false
  20 int64 random_seed = -1
  21 NetParameter train_net_param
  22 NetParameter* test_net_param
  23 bool debug_info = false
  24 string net
  25 NetParameter net_param
  26 NetState train_state
  27 NetState* test_state
  28 bool snapshot_after_train = true
  29 string regularization_type = L2
  30 SolverParameter.SolverType solver_type = SGD
  31 float delta = 1e-08
  32 bool test_initialization = true
  33 int32 average_loss = 1
  34 int32* stepvalue
  35 float clip_gradients = -1
  36 int32 iter_size = 1
  37 SolverParameter.SnapshotFormat snapshot_format = BINARYPROTO
  38 float rms_decay = 0.99
  39 float momentum2 = 0.999
  40 string type = SGD
  41 bool layer_wise_reduce = true @upstream
  42 string* weights @upstream
message SolverState
  1 int32 iter
  2 string learned_net
  3 BlobProto* history
  4 int32 current_step = 0
message NetState
  1 Phase phase = TEST
  2 int32 level = 0
  3 string* stage
message NetStateRule
  1 Phase phase
  2 int32 min_level
  3 int32 max_level
  4 string* stage
  5 string* not_stage
message ParamSpec
  1 string name
  2 ParamSpec.DimCheckMode share_mode
  3 float lr_mult = 1
  4 float decay_mult = 1
message LayerParameter
  1 string name
  2 string type
  3 string* bottom
  4 string* top
  5 float* loss_weight
  6 ParamSpec* param
  7 BlobProto* blobs
  8 NetStateRule* include
  9 NetStateRule* exclude
  10 Phase phase
  11 bool* propagate_down
  100 TransformationParameter transform_param
  101 LossParameter loss_param
  102 AccuracyParameter accuracy_param
  103 ArgMaxParameter argmax_param
  104 ConcatParameter concat_param
  105 ContrastiveLossParameter contrastive_loss_param
  106 ConvolutionParameter convolution_param
  107 DataParameter data_param
  108 DropoutParameter dropout_param
  109 DummyDataParameter dummy_data_param
  110 EltwiseParameter eltwise_param
  111 ExpParameter exp_param
  112 HDF5DataParameter hdf5_data_param
  113 HDF5OutputParameter hdf5_output_param
  114 HingeLossParameter hinge_loss_param
  115 ImageDataParameter image_data_param
  116 InfogainLossParameter infogain_loss_param
  117 InnerProductParameter inner_product_param
  118 LRNParameter lrn_param
  119 MemoryDataParameter memory_data_param
  120 MVNParameter mvn_param
  121 PoolingParameter pooling_param
  122 PowerParameter power_param
  123 ReLUParameter relu_param
  124 SigmoidParameter sigmoid_param
  125 SoftmaxParameter softmax_param
  126 SliceParameter slice_param
  127 TanHParameter tanh_param
  128 ThresholdParameter threshold_param
  129 WindowDataParameter window_data_param
  130 PythonParameter python_param
  131 PReLUParameter prelu_param
  132 SPPParameter spp_param
  133 ReshapeParameter reshape_param
  134 LogParameter log_param
  135 FlattenParameter flatten_param
  136 ReductionParameter reduction_param
  137 EmbedParameter embed_param
  138 TileParameter tile_param
  139 BatchNormParameter batch_norm_param
  140 ELUParameter elu_param
  141 BiasParameter bias_param
  142 ScaleParameter scale_param
  143 InputParameter input_param
  144 CropParameter crop_param
  145 ParameterParameter parameter_param
  146 RecurrentParameter recurrent_param
  147 SwishParameter swish_param @upstream
  147 CPMDataParameter cpmdata_param @fork
  148 ClipParameter clip_param @upstream
  148 ROIPoolingParameter roi_pooling_param @fork
  20000 CPMTransformationParameter cpm_transform_param @text
message TransformationParameter
  1 float scale = 1
  2 bool mirror = false
  3 uint32 crop_size = 0
  4 string mean_file
  5 float* mean_value
  6 bool force_color = false @upstream,ssd
  6 uint32 stride = 4 @fork
  7 bool force_gray = false @upstream,ssd
  7 float scale_cvg = 0.5 @fork
  8 uint32 max_cvg_len = 50 @fork
  9 uint32 min_cvg_len = 50 @fork
  10 bool opaque_coverage = true @fork
  11 string coverage = gridbox_max @fork
  12 float flip_prob = 0.5 @fork
  13 float max_rotate_degree = 5 @fork
  14 bool visualize = false @fork
  15 uint32 crop_size_x = 368 @fork
  16 uint32 crop_size_y = 368 @fork
  17 float scale_prob = 0.5 @fork
  18 float scale_min = 0.9 @fork
  19 float scale_max = 1.1 @fork
  20 float bbox_norm_factor = 300 @fork
  21 string img_header = . @fork
  22 bool force_color = false @fork
  23 bool force_gray = false @fork
  24 float target_dist = 1 @fork
  25 float center_perterb_max = 10 @fork
  26 float sigma = 7 @fork
  27 float sigma_center = 21 @fork
  28 float clahe_tile_size = 8 @fork
  29 float clahe_clip_limit = 4 @fork
  30 bool do_clahe = false @fork
  31 uint32 num_parts = 14 @fork
  32 uint32 num_total_augs = 82 @fork
  33 string aug_way = rand @fork
  34 uint32 gray = 0 @fork
  35 uint32 np_in_lmdb = 16 @fork
  38 bool transform_body_joint = true @fork
  39 bool put_gaussian = true @fork
  40 bool visualize_label = false @fork
message LossParameter
  1 int32 ignore_label
  2 bool normalize
  3 LossParameter.NormalizationMode normalization = VALID
message AccuracyParameter
  1 uint32 top_k = 1
  2 int32 axis = 1
  3 int32 ignore_label
message ArgMaxParameter
  1 bool out_max_val = false
  2 uint32 top_k = 1
  3 int32 axis
message ClipParameter @upstream
  1 float! min
  2 float! max
message ConcatParameter
  1 uint32 concat_dim = 1
  2 int32 axis = 1
message BatchNormParameter
  1 bool use_global_stats
  2 float moving_average_fraction = 0.999
  3 float eps = 1e-05
message BiasParameter
  1 int32 axis = 1
  2 int32 num_axes = 1
  3 FillerParameter filler
message ContrastiveLossParameter
  1 float margin = 1
  2 bool legacy_version = false
message ConvolutionParameter
  1 uint32 num_output
  2 bool bias_term = true
  3 uint32* pad
  4 uint32* kernel_size
  5 uint32 group = 1
  6 uint32* stride
  7 FillerParameter weight_filler
  8 FillerParameter bias_filler
  9 uint32 pad_h = 0
  10 uint32 pad_w = 0
  11 uint32 kernel_h
  12 uint32 kernel_w
  13 uint32 stride_h
  14 uint32 stride_w
  15 ConvolutionParameter.Engine engine = DEFAULT
  16 int32 axis = 1
  17 bool force_nd_im2col = false
  18 uint32* dilation
message CropParameter
  1 int32 axis = 2
  2 uint32* offset
message DataParameter
  1 string source
  2 float scale = 1
  3 string mean_file
  4 uint32 batch_size
  5 uint32 crop_size = 0
  6 bool mirror = false
  7 uint32 rand_skip = 0
  8 DataParameter.DB backend = LEVELDB
  9 bool force_encoded_color = false
  10 uint32 prefetch = 4
message DropoutParameter
  1 float dropout_ratio = 0.5
message DummyDataParameter
  1 FillerParameter* data_filler
  2 uint32* num
  3 uint32* channels
  4 uint32* height
  5 uint32* width
  6 BlobShape* shape
message EltwiseParameter
  1 EltwiseParameter.EltwiseOp operation = SUM
  2 float* coeff
  3 bool stable_prod_grad = true
message ELUParameter
  1 float alpha = 1
message EmbedParameter
  1 uint32 num_output
  2 uint32 input_dim
  3 bool bias_term = true
  4 FillerParameter weight_filler
  5 FillerParameter bias_filler
message ExpParameter
  1 float base = -1
  2 float scale = 1
  3 float shift = 0
message FlattenParameter
  1 int32 axis = 1
  2 int32 end_axis = -1
message HDF5DataParameter
  1 string source
  2 uint32 batch_size
  3 bool shuffle = false
  4 bool debug = false @fork
message HDF5OutputParameter
  1 string file_name
message HingeLossParameter
  1 HingeLossParameter.Norm norm = L1
message ImageDataParameter
  1 string source
  2 float scale = 1
  3 string mean_file
  4 uint32 batch_size = 1
  5 uint32 crop_size = 0
  6 bool mirror = false
  7 uint32 rand_skip = 0
  8 bool shuffle = false
  9 uint32 new_height = 0
  10 uint32 new_width = 0
  11 bool is_color = true
  12 string root_folder =
message InfogainLossParameter
  1 string source
  2 int32 axis = 1 @upstream
message InnerProductParameter
  1 uint32 num_output
  2 bool bias_term = true
  3 FillerParameter weight_filler
  4 FillerParameter bias_filler
  5 int32 axis = 1
  6 bool transpose = false
message InputParameter
  1 BlobShape* shape
message LogParameter
  1 float base = -1
  2 float scale = 1
  3 float shift = 0
message LRNParameter
  1 uint32 local_size = 5
  2 float alpha = 1
  3 float beta = 0.75
  4 LRNParameter.NormRegion norm_region = ACROSS_CHANNELS
  5 float k = 1
  6 LRNParameter.Engine engine = DEFAULT
message MemoryDataParameter
  1 uint32 batch_size
  2 uint32 channels
  3 uint32 height
  4 uint32 width
message MVNParameter
  1 bool normalize_variance = true
  2 bool across_channels = false
  3 float eps = 1e-09
message ParameterParameter
  1 BlobShape shape
message PoolingParameter
  1 PoolingParameter.PoolMethod pool = MAX
  2 uint32 kernel_size
  3 uint32 stride = 1
  4 uint32 pad = 0
  5 uint32 kernel_h
  6 uint32 kernel_w
  7 uint32 stride_h
  8 uint32 stride_w
  9 uint32 pad_h = 0
  10 uint32 pad_w = 0
  11 PoolingParameter.Engine engine = DEFAULT
  12 bool global_pooling = false
  13 PoolingParameter.RoundMode round_mode = CEIL @upstream
  20013 bool ceil_mode = true @text
message PowerParameter
  1 float power = 1
  2 float scale = 1
  3 float shift = 0
message PythonParameter
  1 string module
  2 string layer
  3 string param_str =
  4 bool share_in_parallel = false
message RecurrentParameter
  1 uint32 num_output = 0
  2 FillerParameter weight_filler
  3 FillerParameter bias_filler
  4 bool debug_info = false
  5 bool expose_hidden = false
message ReductionParameter
  1 ReductionParameter.ReductionOp operation = SUM
  2 int32 axis = 0
  3 float coeff = 1
message ReLUParameter
  1 float negative_slope = 0
  2 ReLUParameter.Engine engine = DEFAULT
message ReshapeParameter
  1 BlobShape shape
  2 int32 axis = 0
  3 int32 num_axes = -1
message ScaleParameter
  1 int32 axis = 1
  2 int32 num_axes = 1
  3 FillerParameter filler
  4 bool bias_term = false
  5 FillerParameter bias_filler
message SigmoidParameter
  1 SigmoidParameter.Engine engine = DEFAULT
message SliceParameter
  1 uint32 slice_dim = 1
  2 uint32* slice_point
  3 int32 axis = 1
message SoftmaxParameter
  1 SoftmaxParameter.Engine engine = DEFAULT
  2 int32 axis = 1
message SwishParameter @upstream
  1 float beta = 1
message TanHParameter
  1 TanHParameter.Engine engine = DEFAULT
message TileParameter
  1 int32 axis = 1
  2 int32 tiles
message ThresholdParameter
  1 float threshold = 0
message WindowDataParameter
  1 string source
  2 float scale = 1
  3 string mean_file
  4 uint32 batch_size
  5 uint32 crop_size = 0
  6 bool mirror = false
  7 float fg_threshold = 0.5
  8 float bg_threshold = 0.5
  9 float fg_fraction = 0.25
  10 uint32 context_pad = 0
  11 string crop_mode = warp
  12 bool cache_images = false
  13 string root_folder =
message SPPParameter
  1 uint32 pyramid_height
  2 SPPParameter.PoolMethod pool = MAX
  6 SPPParameter.Engine engine = DEFAULT
message V1LayerParameter
  1 V0LayerParameter layer
  2 string* bottom
  3 string* top
  4 string name
  5 V1LayerParameter.LayerType type
  6 BlobProto* blobs
  7 float* blobs_lr
  8 float* weight_decay
  9 ConcatParameter concat_param
  10 ConvolutionParameter convolution_param
  11 DataParameter data_param
  12 DropoutParameter dropout_param
  13 HDF5DataParameter hdf5_data_param
  14 HDF5OutputParameter hdf5_output_param
  15 ImageDataParameter image_data_param
  16 InfogainLossParameter infogain_loss_param
  17 InnerProductParameter inner_product_param
  18 LRNParameter lrn_param
  19 PoolingParameter pooling_param
  20 WindowDataParameter window_data_param
  21 PowerParameter power_param
  22 MemoryDataParameter memory_data_param
  23 ArgMaxParameter argmax_param
  24 EltwiseParameter eltwise_param
  25 ThresholdParameter threshold_param
  26 DummyDataParameter dummy_data_param
  27 AccuracyParameter accuracy_param
  29 HingeLossParameter hinge_loss_param
  30 ReLUParameter relu_param
  31 SliceParameter slice_param
  32 NetStateRule* include
  33 NetStateRule* exclude
  34 MVNParameter mvn_param
  35 float* loss_weight
  36 TransformationParameter transform_param
  37 TanHParameter tanh_param
  38 SigmoidParameter sigmoid_param
  39 SoftmaxParameter softmax_param
  40 ContrastiveLossParameter contrastive_loss_param
  41 ExpParameter exp_param
  42 LossParameter loss_param
  1001 string* param
  1002 V1LayerParameter.DimCheckMode* blob_share_mode
message V0LayerParameter
  1 string name
  2 string type
  3 uint32 num_output
  4 bool biasterm = true
  5 FillerParameter weight_filler
  6 FillerParameter bias_filler
  7 uint32 pad = 0
  8 uint32 kernelsize
  9 uint32 group = 1
  10 uint32 stride = 1
  11 V0LayerParameter.PoolMethod pool = MAX
  12 float dropout_ratio = 0.5
  13 uint32 local_size = 5
  14 float alpha = 1
  15 float beta = 0.75
  16 string source
  17 float scale = 1
  18 string meanfile
  19 uint32 batchsize
  20 uint32 cropsize = 0
  21 bool mirror = false
  22 float k = 1
  50 BlobProto* blobs
  51 float* blobs_lr
  52 float* weight_decay
  53 uint32 rand_skip = 0
  54 float det_fg_threshold = 0.5
  55 float det_bg_threshold = 0.5
  56 float det_fg_fraction = 0.25
  58 uint32 det_context_pad = 0
  59 string det_crop_mode = warp
  60 int32 new_num = 0
  61 int32 new_channels = 0
  62 int32 new_height = 0
  63 int32 new_width = 0
  64 bool shuffle_images = false
  65 uint32 concat_dim = 1
  1001 HDF5OutputParameter hdf5_output_param
message PReLUParameter
  1 FillerParameter filler
  2 bool channel_shared = false
message ROIPoolingParameter @fork
  1 uint32 pooled_h = 0
  2 uint32 pooled_w = 0
  3 float spatial_scale = 1
message CPMDataParameter @fork
  1 string source
  2 float scale = 1
  3 string mean_file
  4 uint32 batch_size
  5 uint32 crop_size = 0
  6 bool mirror = false
  7 uint32 rand_skip = 0
  8 CPMDataParameter.DB backend = LEVELDB
  9 bool force_encoded_color = false
  10 uint32 prefetch = 4
  11 string lbl_source
message CPMTransformationParameter @text
  1 uint32 stride = 8
  2 float max_rotate_degree = 5
  3 bool visualize = false
  4 uint32 crop_size = 0
  5 float scale_prob = 0.5
  6 float scale_min = 0.9
  7 float scale_max = 1.1
  8 float target_dist = 1
  9 float center_perterb_max = 10
  10 float sigma = 7
  11 float sigma_center = 21
  12 float clahe_tile_size = 8
  13 float clahe_clip_limit = 4
  14 bool do_clahe = false
  15 uint32 num_parts = 56
  16 uint32 num_total_augs = 82
  17 string aug_way = rand
  18 uint32 gray = 0
  19 uint32 np_in_lmdb = 16
  20 bool transform_body_joint = true
  21 bool put_gaussian = true
  22 bool visualize_label = false
  23 uint32 crop_size_x = 368
  24 uint32 crop_size_y = 368
  25 float flip_prob = 0.5
  26 bool mirror = false
  27 float scale = 1
  28 string mean_file
  29 float* mean_value
  30 bool force_color = false
  31 bool force_gray = false
"""

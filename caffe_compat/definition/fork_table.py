"""What forks of Caffe added to its messages, and which message each of their layer types reads.

Rows are written as in :mod:`caffe_compat.definition.schema_table`; the mark behind ``@`` is the
fork's column, several forks stand with commas between them. One field name may stand in several
rows: the forks gave it different numbers, and one number means different fields in different forks.
In text names are unambiguous. In a binary file the type of a layer says whose numbers hold for it.

    ssd         weiliu89/caffe, branch ssd
    rcnn, rfcn  the Caffe of py-faster-rcnn, and that of R-FCN
    pspnet      hszhao/PSPNet
    segnet      alexgkendall/caffe-segnet
    enet        TimoSaemann/ENet
    rtpose      the Caffe of the real-time multi-person pose demo
    intel       intel/caffe
    happynear   happynear/caffe-windows
    shufflenet  farmingyard/ShuffleNet

Source: the ``caffe.proto`` files of those forks (field numbers are facts).
"""

FORK_TABLE = """\
enum EmitConstraint.EmitType @ssd
  0 CENTER
  1 MIN_OVERLAP
enum ResizeParameter.Resize_mode @ssd
  1 WARP
  2 FIT_SMALL_SIZE
  3 FIT_LARGE_SIZE_AND_PAD
enum ResizeParameter.Pad_mode @ssd
  1 CONSTANT
  2 MIRRORED
  3 REPEAT_NEAREST
enum ResizeParameter.Interp_mode @ssd
  1 LINEAR
  2 AREA
  3 NEAREST
  4 CUBIC
  5 LANCZOS4
enum MultiBoxLossParameter.LocLossType @ssd
  0 L2
  1 SMOOTH_L1
enum MultiBoxLossParameter.ConfLossType @ssd
  0 SOFTMAX
  1 LOGISTIC
enum MultiBoxLossParameter.MatchType @ssd
  0 BIPARTITE
  1 PER_PREDICTION
enum MultiBoxLossParameter.MiningType @ssd
  0 NONE
  1 MAX_NEGATIVE
  2 HARD_EXAMPLE
enum PriorBoxParameter.CodeType @ssd
  1 CORNER
  2 CENTER_SIZE
  3 CORNER_SIZE
enum VideoDataParameter.VideoType @ssd
  0 WEBCAM
  1 VIDEO
enum AnnotatedDatum.AnnotationType @ssd
  0 BBOX
enum BNParameter.BNMode @segnet,enet
  0 LEARN
  1 INFERENCE
enum BNParameter.Engine @pspnet,happynear
  0 DEFAULT
  1 CAFFE
  2 CUDNN
message Sampler @ssd
  1 float min_scale = 1
  2 float max_scale = 1
  3 float min_aspect_ratio = 1
  4 float max_aspect_ratio = 1
message SampleConstraint @ssd
  1 float min_jaccard_overlap
  2 float max_jaccard_overlap
  3 float min_sample_coverage
  4 float max_sample_coverage
  5 float min_object_coverage
  6 float max_object_coverage
message BatchSampler @ssd
  1 bool use_original_image = true
  2 Sampler sampler
  3 SampleConstraint sample_constraint
  4 uint32 max_sample
  5 uint32 max_trials = 100
message EmitConstraint @ssd
  1 EmitConstraint.EmitType emit_type = CENTER
  2 float emit_overlap
message NormalizedBBox @ssd
  1 float xmin
  2 float ymin
  3 float xmax
  4 float ymax
  5 int32 label
  6 bool difficult
  7 float score
  8 float size
message Annotation @ssd
  1 int32 instance_id = 0
  2 NormalizedBBox bbox
message AnnotationGroup @ssd
  1 int32 group_label
  2 Annotation* annotation
message AnnotatedDatum @ssd
  1 Datum datum
  2 AnnotatedDatum.AnnotationType type
  3 AnnotationGroup* annotation_group
message ResizeParameter @ssd
  1 float prob = 1
  2 ResizeParameter.Resize_mode resize_mode = WARP
  3 uint32 height = 0
  4 uint32 width = 0
  5 ResizeParameter.Pad_mode pad_mode = CONSTANT
  6 float* pad_value
  7 ResizeParameter.Interp_mode* interp_mode
  8 uint32 height_scale = 0
  9 uint32 width_scale = 0
message SaltPepperParameter @ssd
  1 float fraction = 0
  2 float* value
message NoiseParameter @ssd
  1 float prob = 0
  2 bool hist_eq = false
  3 bool inverse = false
  4 bool decolorize = false
  5 bool gauss_blur = false
  6 float jpeg = -1
  7 bool posterize = false
  8 bool erode = false
  9 bool saltpepper = false
  10 SaltPepperParameter saltpepper_param
  11 bool clahe = false
  12 bool convert_to_hsv = false
  13 bool convert_to_lab = false
message DistortionParameter @ssd
  1 float brightness_prob = 0
  2 float brightness_delta = 0
  3 float contrast_prob = 0
  4 float contrast_lower = 0
  5 float contrast_upper = 0
  6 float hue_prob = 0
  7 float hue_delta = 0
  8 float saturation_prob = 0
  9 float saturation_lower = 0
  10 float saturation_upper = 0
  11 float random_order_prob = 0
message ExpansionParameter @ssd
  1 float prob = 1
  2 float max_expand_ratio = 1
message AnnotatedDataParameter @ssd
  1 BatchSampler* batch_sampler
  2 string label_map_file
  3 AnnotatedDatum.AnnotationType anno_type
message DetectionEvaluateParameter @ssd
  1 uint32 num_classes
  2 uint32 background_label_id = 0
  3 float overlap_threshold = 0.5
  4 bool evaluate_difficult_gt = true
  5 string name_size_file
  6 ResizeParameter resize_param
message NonMaximumSuppressionParameter @ssd
  1 float nms_threshold = 0.3
  2 int32 top_k
  3 float eta = 1
message SaveOutputParameter @ssd
  1 string output_directory
  2 string output_name_prefix
  3 string output_format
  4 string label_map_file
  5 string name_size_file
  6 uint32 num_test_image
  7 ResizeParameter resize_param
message DetectionOutputParameter @ssd
  1 uint32 num_classes
  2 bool share_location = true
  3 int32 background_label_id = 0
  4 NonMaximumSuppressionParameter nms_param
  5 SaveOutputParameter save_output_param
  6 PriorBoxParameter.CodeType code_type = CORNER
  7 int32 keep_top_k = -1
  8 bool variance_encoded_in_target = false
  9 float confidence_threshold
  10 bool visualize = false
  11 float visualize_threshold
  12 string save_file
message MultiBoxLossParameter @ssd
  1 MultiBoxLossParameter.LocLossType loc_loss_type = SMOOTH_L1
  2 MultiBoxLossParameter.ConfLossType conf_loss_type = SOFTMAX
  3 float loc_weight = 1
  4 uint32 num_classes
  5 bool share_location = true
  6 MultiBoxLossParameter.MatchType match_type = PER_PREDICTION
  7 float overlap_threshold = 0.5
  8 bool use_prior_for_matching = true
  9 uint32 background_label_id = 0
  10 bool use_difficult_gt = true
  11 bool do_neg_mining
  12 float neg_pos_ratio = 3
  13 float neg_overlap = 0.5
  14 PriorBoxParameter.CodeType code_type = CORNER
  16 bool encode_variance_in_target = false
  17 bool map_object_to_agnostic = false
  18 bool ignore_cross_boundary_bbox = false
  19 bool bp_inside = false
  20 MultiBoxLossParameter.MiningType mining_type = MAX_NEGATIVE
  21 NonMaximumSuppressionParameter nms_param
  22 int32 sample_size = 64
  23 bool use_prior_for_nms = false
message NormalizeParameter @ssd
  1 bool across_spatial = true
  2 FillerParameter scale_filler
  3 bool channel_shared = true
  4 float eps = 1e-10
message PermuteParameter @ssd
  1 uint32* order
message PriorBoxParameter @ssd
  1 float* min_size
  2 float* max_size
  3 float* aspect_ratio
  4 bool flip = true
  5 bool clip = false
  6 float* variance
  7 uint32 img_size
  8 uint32 img_h
  9 uint32 img_w
  10 float step
  11 float step_h
  12 float step_w
  13 float offset = 0.5
message VideoDataParameter @ssd
  1 VideoDataParameter.VideoType video_type = WEBCAM
  2 int32 device_id = 0
  3 string video_file
  4 uint32 skip_frames = 0
message LabelMapItem @ssd
  1 string name
  2 int32 label
  3 string display_name
message LabelMap @ssd
  1 LabelMapItem* item
message SolverParameter
  41 string eval_type = classification @ssd
  42 string ap_version = Integral @ssd
  43 int32* plateau_winsize @ssd
  44 bool show_per_class_result = false @ssd
message LayerParameter
  200 AnnotatedDataParameter annotated_data_param @ssd
  201 MultiBoxLossParameter multibox_loss_param @ssd
  202 PermuteParameter permute_param @ssd
  203 PriorBoxParameter prior_box_param @ssd
  204 DetectionOutputParameter detection_output_param @ssd
  205 DetectionEvaluateParameter detection_evaluate_param @ssd
  206 NormalizeParameter norm_param @ssd
  207 VideoDataParameter video_data_param @ssd
  8266711 ROIPoolingParameter roi_pooling_param @rcnn,rfcn
  154 ROIPoolingParameter roi_pooling_param @intel
  204 ROIPoolingParameter roi_pooling_param @happynear
  8266712 SmoothL1LossParameter smooth_l1_loss_param @rcnn,rfcn
  148 SmoothL1LossParameter smooth_l1_loss_param @intel
  10001 PSROIPoolingParameter psroi_pooling_param @rfcn
  153 PSROIPoolingParameter psroi_pooling_param @intel
  220 PSROIPoolingParameter psroi_pooling_param @happynear
  143 InterpParameter interp_param @pspnet
  152 BNParameter bn_param @pspnet
  200 BNParameter bn_param @happynear
  45 BNParameter bn_param @segnet,enet
  137 UpsampleParameter upsample_param @segnet
  147 UpsampleParameter upsample_param @enet
  148 ImResizeParameter imresize_param @rtpose
  149 NmsParameter nms_param @rtpose
  159 ReorgParameter reorg_param @intel
  164 ShuffleChannelParameter shuffle_channel_param @shufflenet
message TransformationParameter
  8 ResizeParameter resize_param @ssd
  9 NoiseParameter noise_param @ssd
  10 EmitConstraint emit_constraint @ssd
  11 uint32 crop_h = 0 @ssd
  12 uint32 crop_w = 0 @ssd
  13 DistortionParameter distort_param @ssd
  14 ExpansionParameter expand_param @ssd
message ROIPoolingParameter @fork,rcnn,rfcn,intel,happynear
  4 uint32* pooled_size @intel
message SmoothL1LossParameter @rcnn,rfcn,intel
  1 float sigma = 1
message PSROIPoolingParameter @rfcn,intel,happynear
  1 float! spatial_scale
  2 int32! output_dim
  3 int32! group_size
message InterpParameter @pspnet
  1 int32 height = 0
  2 int32 width = 0
  3 int32 zoom_factor = 1
  4 int32 shrink_factor = 1
  5 int32 pad_beg = 0
  6 int32 pad_end = 0
message BNParameter @pspnet,happynear,segnet,enet
  1 FillerParameter slope_filler @pspnet,happynear
  2 FillerParameter bias_filler @pspnet,happynear
  3 float momentum = 0.9 @pspnet,happynear
  4 float eps = 1e-05 @pspnet,happynear
  5 bool frozen = false @pspnet,happynear
  6 BNParameter.Engine engine = DEFAULT @pspnet,happynear
  1 FillerParameter scale_filler @segnet,enet
  2 FillerParameter shift_filler @segnet,enet
  3 BNParameter.BNMode bn_mode = LEARN @segnet,enet
message UpsampleParameter @segnet,enet
  1 uint32 scale = 2
  2 uint32 scale_h
  3 uint32 scale_w
  4 bool pad_out_h = false
  5 bool pad_out_w = false
  6 uint32 upsample_h
  7 uint32 upsample_w
message ImResizeParameter @rtpose
  1 uint32 target_spatial_width = 368
  2 uint32 target_spatial_height = 368
  3 float factor = 0
  4 float start_scale = 1
  5 float scale_gap = 0.1
message NmsParameter @rtpose
  1 float threshold = 0.5
  2 uint32 num_peak = 100
  3 uint32 max_peaks = 20
  4 uint32 num_parts = 15
message ReorgParameter @intel
  1 uint32 stride
  2 bool reverse = false
message ShuffleChannelParameter @shufflenet
  1 uint32 group = 1
"""

# Layer types that only forks have, and the message that each of them reads ("" for none). Not all
# of them can be computed here; all of them can be read.
FORK_TYPES = {
    "ConvolutionDepthwise": "convolution_param",
    "Permute": "permute_param",
    "Normalize": "norm_param",
    "Axpy": "",
    "ShuffleChannel": "shuffle_channel_param",
    "Upsample": "upsample_param",
    "Interp": "interp_param",
    "Reorg": "reorg_param",
    "BN": "bn_param",
    "SmoothL1Loss": "smooth_l1_loss_param",
    "ROIPooling": "roi_pooling_param",
    "PSROIPooling": "psroi_pooling_param",
    "PriorBox": "prior_box_param",
    "DetectionOutput": "detection_output_param",
    "AnnotatedData": "annotated_data_param",
    "MultiBoxLoss": "multibox_loss_param",
    "DetectionEvaluate": "detection_evaluate_param",
    "VideoData": "video_data_param",
    "ImResize": "imresize_param",
    "Nms": "nms_param",
}

# Layer types of BVLC Caffe and of the CPM release.
_STOCK = """
AbsVal Accuracy ArgMax BNLL BatchNorm BatchReindex Bias CPMData Clip Concat ContrastiveLoss
Convolution Crop Data Deconvolution Dropout DummyData ELU Eltwise Embed EuclideanLoss Exp Filter
Flatten HDF5Data HDF5Output HingeLoss Im2col ImageData InfogainLoss InnerProduct Input LRN LSTM
LSTMUnit Log MVN MemoryData MultinomialLogisticLoss PReLU Parameter Pooling Power Python RNN ReLU
Reduction Reshape SPP Scale Sigmoid SigmoidCrossEntropyLoss Silence Slice Softmax SoftmaxWithLoss
Split Swish TanH Threshold Tile WindowData
"""
STOCK_TYPES = frozenset(_STOCK.split())

/* What TensorRT's Python bindings need of its three libraries to be imported. Nothing can be made: the factories give
   null, as the real ones do where there is no GPU. */

int getInferLibVersion(void) { return 100300; }
int getNvOnnxParserVersion(void) { return 0; }
void *createInferBuilder_INTERNAL(void) { return 0; }
void *createInferRefitter_INTERNAL(void) { return 0; }
void *createInferRuntime_INTERNAL(void) { return 0; }
void *createNvOnnxParserRefitter_INTERNAL(void) { return 0; }
void *createNvOnnxParser_INTERNAL(void) { return 0; }
void *getBuilderPluginRegistry(void) { return 0; }
void *getPluginRegistry(void) { return 0; }
int initLibNvInferPlugins(void) { return 0; }

// Messages and tools of a chat request as the JSON that chat templates expect.
#ifndef THERMOCLINE_SERVER_GRPC_TEMPLATE_INPUTS_H_
#define THERMOCLINE_SERVER_GRPC_TEMPLATE_INPUTS_H_

#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "thermocline/v1/inference.pb.h"

namespace thermocline {

using ChatMessages = google::protobuf::RepeatedPtrField<v1::ChatMessage>;
using Tools = google::protobuf::RepeatedPtrField<v1::Tool>;

// "messages", "tools" (when there are any) and the further arguments, which cannot replace those.
// INVALID_ARGUMENT names the field.
absl::StatusOr<nlohmann::ordered_json> ToTemplateInputs(const ChatMessages& messages,
                                                        const Tools& tools,
                                                        const std::string& arguments_json);
// The tools in OpenAI's form, [{"type": "function", "function": {...}}].
absl::StatusOr<nlohmann::ordered_json> ToToolList(const Tools& tools);

}  // namespace thermocline

#endif  // THERMOCLINE_SERVER_GRPC_TEMPLATE_INPUTS_H_

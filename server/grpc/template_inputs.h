// Messages and tools of a chat request as the JSON that chat templates expect.
#ifndef THERMOCLINE_SERVER_GRPC_TEMPLATE_INPUTS_H_
#define THERMOCLINE_SERVER_GRPC_TEMPLATE_INPUTS_H_

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "server/grpc/convert.h"
#include "thermocline/v1/inference.pb.h"

namespace thermocline {

class ChatTemplate;

using ChatMessages = google::protobuf::RepeatedPtrField<v1::ChatMessage>;
using Tools = google::protobuf::RepeatedPtrField<v1::Tool>;

// The first style in which the template shows the name and the arguments of a call; the default
// when it shows calls in none.
CallStyle FindCallStyle(const ChatTemplate& chat_template,
                        const std::map<std::string, std::string>& special);

// "messages", "tools" (when there are any) and the further arguments, which cannot replace those.
// INVALID_ARGUMENT names the field.
absl::StatusOr<nlohmann::ordered_json> ToTemplateInputs(const ChatMessages& messages,
                                                        const Tools& tools,
                                                        const std::string& arguments_json,
                                                        CallStyle style = {});

}  // namespace thermocline

#endif  // THERMOCLINE_SERVER_GRPC_TEMPLATE_INPUTS_H_

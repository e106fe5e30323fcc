#include "agent/rpc/status_json.h"

#include <vector>

#include "agent/base/clock.h"
#include "agent/rpc/convert_status.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/util/json_util.h"

namespace metal::rpc {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// Passes each text inside of `message` through `clean`; keys of maps stay.
void CleanTexts(Message& message, const recorder::CleanText& clean) {
  const auto* reflection = message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const int count = field->is_repeated() ? reflection->FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
        CleanTexts(field->is_repeated() ? *reflection->MutableRepeatedMessage(&message, field, i)
                                        : *reflection->MutableMessage(&message, field),
                   clean);
      } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING && field->is_repeated()) {
        reflection->SetRepeatedString(
            &message, field, i,
            clean(field->name(), reflection->GetRepeatedString(message, field, i)));
      } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
        reflection->SetString(&message, field,
                              clean(field->name(), reflection->GetString(message, field)));
      }
    }
  }
}

}  // namespace

std::string StatusJson(const observe::NodeStatus& status, const recorder::CleanText& clean) {
  v1::NodeStatus message;
  ToProto(status, base::RealClock().Monotonic(), &message);
  CleanTexts(message, clean);
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string text;
  const auto printed = google::protobuf::util::MessageToJsonString(message, &text, options);
  return printed.ok() ? text : "{}\n";
}

}  // namespace metal::rpc

// The version that the server reports.
#ifndef THERMOCLINE_SERVER_VERSION_H_
#define THERMOCLINE_SERVER_VERSION_H_

namespace thermocline {

inline constexpr char kVersion[] = "0.1.0";

}  // namespace thermocline

#endif  // THERMOCLINE_SERVER_VERSION_H_

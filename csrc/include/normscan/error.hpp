// The one exception of the core. What was found, what was expected, and the argument or field, are in its text.
#pragma once

#include <stdexcept>
#include <string>

namespace normscan {

class Error : public std::runtime_error {
  public:
    enum class Kind {
        argument,  // a wrong tensor or number handed to a function
        config,    // a scoring spec that cannot be read or contradicts itself
        device,    // what a GPU or its driver reports
        bundle,    // a bundle that cannot be read, was altered, or contradicts itself
        engine,    // an engine that cannot be opened, or does not run
        picture,   // pixels that cannot be scored
        cancelled,
    };

    Error(Kind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}

    Kind kind() const noexcept { return kind_; }

  private:
    Kind kind_;
};

}  // namespace normscan

// One persistent pool of threads for the whole core. It lives on the floor of ops, because ops and core both use it.
#pragma once

#include <cstdint>
#include <functional>

namespace normscan {

// Calls body(i) for every i in 0..count-1, on the caller and the pool, in no fixed order. What an index means (a fixed
// block of work) must not depend on the number of threads. Nested and concurrent calls are fine. The first exception
// is thrown to the caller after all running indices ended; those not yet begun are left out.
void parallel_for(std::int64_t count, const std::function<void(std::int64_t)>& body);

}  // namespace normscan

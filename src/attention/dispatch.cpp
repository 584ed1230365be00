#include "strobe/attention.h"

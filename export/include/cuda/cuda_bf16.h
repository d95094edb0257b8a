// Generated host code computes in none of its types.
#pragma once
